// The collections view: what the store holds; and to index, rename and delete, where the service lets the page.
"use strict";

const managing = {
  offer(collections, models, damaged) {
    const can = managing.can();
    byId("index-form").hidden = !can;
    byId("welcome").hidden = Boolean(collections.length || damaged.length);
    byId("welcome-index").hidden = !can;
    byId("welcome-command").hidden = can;
    byId("no-collections").hidden = collections.length > 0;
    const encoders = models.filter((model) => model.size);
    fill(byId("index-model"), encoders.map((model) => model.name));
    if (encoders.some((model) => model.name === "faces")) byId("index-model").value = "faces";
    managing.framed = encoders.filter((model) => model.frame).map((model) => model.name);
    managing.offerFaces();
    const roots = (can && service.about.roots) || [];
    fill(byId("roots"), roots);
    if (roots.length === 1 && !byId("index-source").value) byId("index-source").value = roots[0];
    byId("damaged").hidden = !damaged.length;
    byId("damaged").textContent = damaged.map((each) => `Damaged: ${each.name} (${each.reason})`).join("; ");
    replace(byId("collection-list"), collections.map(managing.row));
    if (can) managing.resume();
  },

  can: () => Boolean(service.about && service.about.can_write),
  offerFaces() {
    byId("index-faces-label").hidden = !managing.framed.includes(byId("index-model").value);
  },

  row(collection) {
    const { name, count, model, aliases } = collection;
    const details = make("div", { className: "details", hidden: true });
    const look = makeButton("Look at it", async () => {
      details.hidden = !details.hidden;
      look.setAttribute("aria-expanded", String(!details.hidden));
      if (!details.hidden && !details.children.length) await managing.look(collection, details);
    }, { name: `Look at ${name}`, key: `look ${name}` });
    look.setAttribute("aria-expanded", "false");
    const search = makeButton("Search", () => managing.search(name), { name: `Search ${name}`, key: `search ${name}` });
    const actions = make("div", { className: "row" }, look, search);
    if (managing.can()) {
      actions.append(makeButton("Delete…", () => managing.remove(collection), { name: `Delete ${name}`, className: "quiet bad", key: `delete ${name}` }));
    }
    const words = [`${count.toLocaleString()} ${count === 1 ? "image" : "images"}`, `model ${model || "not loaded"}`];
    return make("li", { className: "collection" },
      make("h3", { textContent: name }), make("p", { className: "hint", textContent: words.join(" · ") }),
      managing.aliases(name, aliases), actions, details);
  },

  // The aliases of a collection, each with a button that takes it away; and a field for another.
  aliases(name, aliases) {
    const line = make("div", { className: "row aliases" });
    for (const alias of aliases) {
      const path = `aliases/${encodeURIComponent(alias)}`;
      const remove = makeButton("×", () => managing.change(() => service.ask(path, { method: "DELETE" })), { name: `Remove the alias ${alias}`, key: `alias ${alias}` });
      line.append(make("span", { className: "chips" }, make("span", { className: "chip", textContent: `also ${alias}` }), ...(managing.can() ? [remove] : [])));
    }
    if (!managing.can()) return line;
    const field = make("input", { required: true, maxLength: 64, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", size: 12 });
    const form = make("form", { className: "row" }, make("label", {}, "Another name ", field), make("button", { className: "quiet", textContent: "Add" }));
    form.lastChild.setAttribute("aria-label", `Add a name for ${name}`);
    form.onsubmit = (event) => {
      event.preventDefault();
      const path = `aliases/${encodeURIComponent(field.value.trim())}`;
      managing.change(() => service.ask(path, { method: "PUT", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ collection: name }) }));
    };
    line.append(form);
    return line;
  },

  // Show some images of a collection, and its people.
  async look({ name, ...row }, place) {
    const path = `collections/${encodeURIComponent(name)}`;
    const facets = `facets?collection=${encodeURIComponent(name)}&field=person&most=50`;
    const info = service.about && (await service.json(path).catch(() => null));
    const people = info ? info.people || [] : (await service.json(facets).catch(() => ({ values: [] }))).values;
    const about = [["Model", `${row.model || "not loaded"} (${row.model_id.slice(0, 12)})`], ["Crop", row.crop], ["Dimensions", row.dimension], ["Folders", row.roots.join(", ")]];
    const images = ((info && info.sample) || []).map((id) => {
      const image = make("img", { alt: "", loading: "lazy" });
      service.showImage(image, itemPath(id, "thumbnail?side=128", name));
      const button = make("button", { type: "button", className: "whole", title: "More like this" }, image);
      button.setAttribute("aria-label", "More like this image of the collection");
      button.onclick = () => managing.search(name, id);
      return button;
    });
    const chips = people.slice(0, 50).map(({ value, count }) => {
      const person = String(value);
      return makeButton(`${readable(person)} (${count})`, () => managing.searchPerson(name, person), { className: "chip", name: `Random image of ${readable(person)}` });
    });
    place.replaceChildren(
      make("div", { className: "sample" }, ...images),
      make("dl", {}, ...about.flatMap(([term, value]) => [make("dt", { textContent: term }), make("dd", { textContent: value })])),
      make("div", { className: "row", hidden: !chips.length }, ...chips),
    );
  },

  // Open the search of a collection: empty, or with an item.
  async search(name, item = null) {
    byId("collection").value = name;
    editing.offerSliders();
    filtering.clear();
    await filtering.learn();
    if (item) return searching.like(item, "");
    open("search");
    searching.clear();
    saveView();
  },

  async searchPerson(name, person) {
    await managing.search(name);
    filtering.only = person;
    await searching.random();
  },

  // Do something to the store, and show what it holds then.
  async change(work) {
    try {
      await waitFor("Changing the store…", work);
      showError(null);
      await load();
      await filtering.learn();
      return true;
    } catch (error) {
      if (error.name !== "AbortError") showError(error);
      return false;
    }
  },

  remove({ name, count }) {
    byId("delete-question").textContent = `Delete the collection ${name} with ${count.toLocaleString()} images? The image files stay where they are.`;
    const dialog = byId("delete");
    dialog.onclose = () => {
      if (dialog.returnValue === "delete") managing.change(() => service.ask(`collections/${encodeURIComponent(name)}`, { method: "DELETE" }));
    };
    dialog.returnValue = "";
    dialog.showModal();
  },

  // Index the folder of the form, and show how far that is.
  async index() {
    const values = { source: byId("index-source").value.trim(), collection: byId("index-collection").value.trim(), model: byId("index-model").value };
    if (byId("index-faces").checked && !byId("index-faces-label").hidden) values.faces = true;
    await managing.follow(() => service.send("index", values));
  },

  // Follow a job that an earlier page has started.
  async resume() {
    const { jobs } = await service.json("jobs").catch(() => ({ jobs: [] }));
    const running = jobs.find((job) => job.kind === "index" && !job.ended);
    if (running && !byId("index-start").disabled) await managing.follow(async () => running);
  },

  async follow(start) {
    const request = new AbortController();
    byId("index-start").disabled = true;
    byId("job-cancel").onclick = () => request.abort();
    try {
      const job = await followJob(await start(), request.signal, managing.showJob);
      if (job.problem) throw new Error(job.problem.detail || job.problem.title);
      showError(null);
      await load();
      await filtering.learn();
    } catch (error) {
      showError(error);
    } finally {
      byId("index-start").disabled = false;
    }
  },

  showJob(job) {
    byId("job").hidden = false;
    byId("job-cancel").hidden = Boolean(job.ended);
    byId("job-state").textContent = `${job.collection || ""}: ${progress(job)}`;
    const bar = byId("job-progress");
    if (job.total) Object.assign(bar, { max: job.total, value: job.done });
    else if (job.ended) Object.assign(bar, { max: 1, value: 1 });
    else bar.removeAttribute("value");
    const reported = ((job.report && job.report.failed) || []).map(({ path, reason }) => ({ path, error: reason }));
    const failures = job.failures || reported;
    byId("job-failures").replaceChildren(...failures.slice(0, 100).map(({ path, error }) => make("li", { textContent: path ? `${path}: ${error}` : error })));
    byId("job-failed").hidden = !failures.length;
    byId("job-failed-count").textContent = `${job.failed || failures.length} not read`;
  },
};

byId("index-model").onchange = managing.offerFaces;
byId("welcome-index").onclick = () => {
  open("manage");
  saveView();
  byId("index-source").focus();
};
byId("index-form").onsubmit = (event) => {
  event.preventDefault();
  managing.index();
};
