// The search view: an image or an item in, a grid of results out.
"use strict";

const searching = {
  file: null, // the query, if it is an image
  item: null, // the query, if it is an item
  person: null, // only results of this person
  request: null, // the request in progress
  asked: "", // the key of the last search

  // The parameters of the request.
  values() {
    const values = { collection: byId("collection").value, k: Number(byId("k").value), ...editing.values() };
    return searching.item ? { ...values, item: searching.item } : values;
  },

  async run() {
    if (!searching.file && !searching.item) return;
    if (searching.request) searching.request.abort();
    const request = (searching.request = new AbortController());
    const options = { signal: request.signal };
    searching.asked = searching.key();
    byId("results").setAttribute("aria-busy", "true");
    byId("verdict").textContent = "Searching…";
    try {
      const values = searching.values();
      const response = searching.item
        ? await service.send("search", values, options)
        : await service.sendFiles("search", values, [searching.file], options);
      showError(null);
      searching.show(response.answers[0]);
    } catch (error) {
      if (error.name === "AbortError") return;
      for (const id of ["results", "filters"]) byId(id).replaceChildren();
      searching.asked = "";
      byId("verdict").textContent = "";
      showError(error);
    } finally {
      if (searching.request === request) byId("results").setAttribute("aria-busy", "false");
    }
  },

  // The same text for the same search.
  key: () => JSON.stringify([searching.values(), searching.person, searching.file && searching.file.name]),

  show(answer) {
    const found = answer.results;
    const verdict = [];
    if (!byId("query-name").textContent) byId("query-name").textContent = readable(answer.query);
    if (answer.treatment) {
      const noise = `(estimated noise ${answer.treatment.sigma.toFixed(0)} of 255)`;
      verdict.push(`${answer.treatment.cleaned ? "query denoised" : "query not denoised, hardly any noise"} ${noise}`);
    }
    if (answer.warning) verdict.push(answer.warning);
    if (answer.match === false) verdict.push("no good match");
    verdict.push(`the ${found.length} most similar, in ${answer.took_ms.toFixed(0)} ms`);
    byId("verdict").textContent = verdict.join("; ");
    byId("empty").hidden = found.length > 0;
    if (!found.length) byId("empty").textContent = "No results.";
    searching.showFilters(found);
    const shown = found.filter((each) => searching.person === null || each.person === searching.person);
    byId("results").replaceChildren(...shown.map(searching.card));
    byId("share").hidden = !searching.item;
  },

  showFilters(found) {
    const counts = new Map();
    for (const each of found) if (each.person) counts.set(each.person, (counts.get(each.person) || 0) + 1);
    if (searching.person !== null && !counts.has(searching.person)) searching.person = null;
    const many = [...counts].filter(([, count]) => count > 1).slice(0, 8);
    const choose = (person) => () => {
      searching.person = searching.person === person ? null : person;
      searching.run();
    };
    byId("filters").replaceChildren(
      ...many.map(([person, count]) => {
        const text = `${readable(person)} (${count})`;
        const button = make("button", { type: "button", className: "quiet", textContent: text });
        button.setAttribute("aria-pressed", String(searching.person === person));
        button.onclick = choose(person);
        return button;
      }),
    );
  },

  card(result) {
    const name = readable(result.person || result.path);
    const image = make("img", { alt: name, loading: "lazy" });
    const collection = encodeURIComponent(byId("collection").value);
    service.showImage(image, `items/${result.id}/thumbnail?side=256&collection=${collection}`);
    const whole = make("button", { type: "button", className: "whole", title: "Show the whole image" }, image);
    whole.onclick = () => searching.enlarge(result, collection, name);
    const score = make("span", { className: "score", textContent: `${result.score.toFixed(3)}` });
    if (result.probability !== null) {
      const p = result.probability;
      const text = p < 0.01 ? "<1 %" : p > 0.99 ? ">99 %" : `${(100 * p).toFixed(0)} %`;
      score.textContent += `, ${text}`;
    }
    const more = make("button", { type: "button", className: "quiet more", textContent: "More like this" });
    more.setAttribute("aria-label", `More like this: ${name}`);
    more.onclick = () => searching.like(result.id, name);
    const label = make("div", {}, make("b", { textContent: name }), score);
    if (result.match) label.append(make("span", { className: "match", textContent: " match" }));
    return make("li", { className: "card" }, whole, label, more);
  },

  enlarge(result, collection, name) {
    byId("large-image").alt = name;
    byId("large-image").removeAttribute("src");
    service.showImage(byId("large-image"), `items/${result.id}/image?collection=${collection}`);
    byId("large-name").textContent = `${name} · ${result.path}`;
    byId("large").showModal();
  },

  // Search with an item; the address of the view has it.
  like(id, name) {
    Object.assign(searching, { item: id, file: null, person: null });
    searching.showQuery(name);
    saveView();
    searching.run();
  },

  take(file) {
    if (!file) return;
    Object.assign(searching, { item: null, file, person: null });
    searching.showQuery(file.name || "pasted");
    saveView();
    searching.run();
  },

  // Show the empty view.
  clear() {
    if (searching.request) searching.request.abort();
    Object.assign(searching, { item: null, file: null, person: null, asked: "" });
    for (const id of ["results", "filters"]) byId(id).replaceChildren();
    for (const id of ["verdict", "query-name"]) byId(id).textContent = "";
    for (const id of ["query", "share", "edited"]) byId(id).hidden = true;
    for (const id of ["drop-hint", "empty"]) byId(id).hidden = false;
  },

  showQuery(name) {
    editing.preview();
    const image = byId("query");
    image.hidden = false;
    image.alt = `The query: ${name}`;
    byId("drop-hint").hidden = true;
    byId("query-name").textContent = name;
    if (searching.file) {
      const url = URL.createObjectURL(searching.file);
      image.onload = () => URL.revokeObjectURL(url);
      image.src = url;
    } else {
      const collection = encodeURIComponent(byId("collection").value);
      service.showImage(image, `items/${searching.item}/thumbnail?side=320&collection=${collection}`);
    }
  },

  async random() {
    try {
      const collection = encodeURIComponent(byId("collection").value);
      const item = await service.json(`items/random?collection=${collection}`);
      searching.like(item.id, readable(item.payload.person || item.payload.path));
    } catch (error) {
      showError(error);
    }
  },
};

const readable = (name) => name.replaceAll("_", " ");
