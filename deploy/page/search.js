// The search view: a picture or an item in, results out.
"use strict";

const ANSWERS = 30;

const searching = {
  picture: null, // the query, if it is a picture of one's own
  item: null, // the query, if it is an item
  text: "", // the query, if it is words
  request: null, // the request in progress
  takes: 0, // how many queries were given: one that is read for long does not replace a later one
  asked: "", // the key of the search that is shown
  answer: null,
  answers: new Map(), // by key: what was found, for the back button

  set(query) {
    Object.assign(searching, { item: null, picture: null, text: "" }, query);
    byId("words").value = searching.text;
  },

  // The parameters of the request.
  values() {
    const values = { collection: byId("collection").value, ...editing.values(), ...filtering.values() };
    const { item, text } = searching;
    return { ...values, ...(item ? { item } : text ? { text } : searching.part.values()) };
  },

  // The same text for the same search.
  key: () => JSON.stringify([searching.values(), byId("k").value, searching.picture && searching.picture.number]),

  // Search; more: for the results that follow those that are shown.
  async run(more = false) {
    if (!searching.picture && !searching.item && !searching.text) return;
    const request = renew(searching);
    const key = searching.key();
    const before = searching.answers.get(key);
    results.busy(!more && !before);
    if (before && !more) return searching.show(key, before);
    try {
      const found = more && before ? before.found : [];
      const next = await waitFor("Searching…", (signal) => searching.ask(found.length, signal), request);
      const known = new Set(found.map((each) => each.id));
      const all = [...found, ...next.answer.results.filter((each) => !known.has(each.id))];
      showError(null);
      searching.show(key, { answer: next.answer, found: all, complete: next.complete || all.length === found.length });
    } catch (error) {
      if (searching.request !== request) return;
      if (!more) {
        results.clear();
        searching.asked = "";
        byId("empty").hidden = true;
      }
      if (error.name === "AbortError") byId("verdict").textContent = "Cancelled.";
      else showError(error);
    } finally {
      if (searching.request === request) results.busy(false);
    }
  },

  // Forget the search in progress.
  stop() {
    if (searching.request) searching.request.abort();
    searching.request = null;
  },

  // Ask for one page of results after the first so many.
  async ask(after, signal) {
    const values = { ...searching.values(), k: Number(byId("k").value), offset: after };
    const response = searching.picture
      ? await service.sendFiles("search", values, [toSend(searching.picture, values)], { signal })
      : await service.send("search", values, { signal });
    const [answer] = response.answers;
    return { answer, complete: answer.results.length < values.k };
  },

  show(key, shown) {
    searching.answers.delete(key);
    searching.answers.set(key, shown);
    if (searching.answers.size > ANSWERS) searching.answers.delete(searching.answers.keys().next().value);
    searching.asked = key;
    searching.answer = shown.answer;
    if (!byId("query-name").textContent) byId("query-name").textContent = readable(shown.answer.query);
    results.show(shown.answer, shown.found, shown.complete);
  },

  // Search with an item; the address of the view has it.
  like(id, name) {
    searching.set({ item: id, takes: searching.takes + 1 });
    open("search");
    searching.showQuery(name);
    saveView();
    return searching.run();
  },

  // Make words the query.
  say(text) {
    searching.set({ text, takes: searching.takes + 1 });
    searching.showPlace("");
    byId("part").hidden = true;
    editing.preview();
  },

  // Search with a file.
  async take(file, options = {}) {
    await started;
    try {
      if (!byId("collection").value) throw new Error("There is no collection to search yet: index a folder first.");
      const take = ++searching.takes;
      const picture = await waitFor("Reading the image…", () => readPicture(file, options));
      if (take !== searching.takes) return;
      open("search");
      await searching.use(picture, true);
    } catch (error) {
      showError(error);
    }
  },

  // Search with an image that a model made: all of it, in a collection of that model if there is one.
  takeMade(blob, name, model) {
    const fits = (each) => each.model === model;
    const { collections } = editing;
    if (model && !fits(editing.collection() || {})) {
      const other = Object.values(collections).find(fits);
      if (other) byId("collection").value = other.name;
      editing.offerSliders();
    }
    return searching.take(new File([blob], name, { type: blob.type }), { crop: model ? "full" : null });
  },

  // Search with a picture: one that was just given, or one of before.
  async use(picture, anew) {
    searching.stop();
    searching.set({ picture });
    searching.showPlace(picture.name);
    if (anew) {
      saveView();
      results.busy(true); // what is shown is of another picture
      byId("verdict").textContent = "";
      byId("seen-figure").hidden = true;
    }
    const { crop } = editing.collection();
    const model = editing.model();
    await filtering.learn();
    const find = (signal) => searching.part.show(picture, { crop, frame: model && model.frame }, signal);
    if (crop.startsWith("faces:"))
      find().catch(() => {}); // the service takes the main face; no need to wait
    else await waitFor("Finding faces…", find).catch(showError);
    if (searching.picture !== picture) return;
    const searched = searching.run();
    editing.preview();
    await searched;
  },

  // Show the empty view; lost: as a picture of one's own is not kept when the page is loaded again.
  clear(lost = false) {
    searching.stop();
    searching.set({ asked: "", answer: null });
    results.busy(false);
    results.clear();
    byId("query-name").textContent = "";
    byId("part").hidden = byId("edited").hidden = true;
    byId("search").classList.remove("asked");
    byId("empty").hidden = false;
    byId("empty").textContent = lost ? LOST : START;
  },

  showPlace(name) {
    byId("query-name").textContent = name;
    byId("search").classList.add("asked");
    byId("empty").hidden = true;
  },

  // Show an item as the query.
  showQuery(name) {
    searching.showPlace(name);
    searching.part.showItem(name);
    service.showImage(byId("query"), itemPath(searching.item, "thumbnail?side=320"));
    editing.preview();
  },

  async random() {
    try {
      const path = `items/random?collection=${encodeURIComponent(byId("collection").value)}`;
      const item = await waitFor("Choosing an image…", (signal) => service.json(path, { signal }));
      await searching.like(item.id, readable(item.payload.person || item.payload.path));
    } catch (error) {
      showError(error);
    }
  },
};

const START = "Search with an image, or start from a random one.";
const LOST = "Your image is not kept when the page is loaded again: choose it once more.";
searching.part = chooser(
  byId("part"),
  (slowly) => {
    editing.previewSoon();
    if (slowly) editing.settled();
    else searching.run();
  },
  "As in the collection",
);
onSubmit(byId("words-form"), () => {
  searching.say(byId("words").value.trim());
  saveView();
  searching.run();
});
byId("more").onclick = () => {
  searching.run(true);
};
