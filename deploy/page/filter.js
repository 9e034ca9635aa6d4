// Filters of the results: people, the best of each person, and a least probability; with fields.js.
"use strict";

const MOST = 50; // people of a collection that the service names

const filtering = {
  info: { people: [], fields: [] }, // what is known of the collection
  collection: "",
  only: null, // a person
  not: [], // people
  fold: false, // duplicates have one place
  each: null, // the best of each person only; null: as the collection suggests

  // Learn the people and the fields of the collection.
  async learn(signal) {
    const name = byId("collection").value;
    if (!name || filtering.collection === name) return;
    filtering.collection = name;
    const path = encodeURIComponent(name);
    const info = await service.json(`collections/${path}`, { signal }).catch(() => ({ people: [], fields: [] }));
    if (filtering.collection !== name) return;
    filtering.info = { people: info.people, fields: info.fields.filter((field) => fields.usable(field.name)) };
    fill(
      byId("people"),
      filtering.info.people.map((each) => String(each.value)),
    );
    byId("person-label").hidden = byId("each-label").hidden = !filtering.info.people.length;
    fields.offer();
  },

  // More people than one page has results: the best of each, so that the first does not fill it.
  suggestsEach: () => filtering.info.people.length > Math.min(Number(byId("k").value), MOST - 1),
  takesEach: () => !filtering.only && (filtering.each === null ? filtering.suggestsEach() : filtering.each),

  // The parameters of a search.
  values() {
    const where = filtering.not.map((person) => `person!=${quoted(person)}`);
    if (filtering.only !== null) where.push(`person=${quoted(filtering.only)}`);
    where.push(...fields.conditions());
    return {
      ...(where.length ? { where: where.join(", ") } : {}),
      ...(filtering.takesEach() ? { group_by: "person" } : filtering.fold ? { fold_duplicates: true } : {}),
    };
  },

  least: () => Number(byId("least").value) / 100,
  any: () => Boolean(filtering.values().where),

  save(view) {
    if (filtering.only !== null) view.set("only", filtering.only);
    for (const person of filtering.not) view.append("not", person);
    if (filtering.each !== null) view.set("each", filtering.each ? "1" : "0");
    if (filtering.fold) view.set("fold", "1");
    fields.save(view);
    if (filtering.least()) view.set("least", byId("least").value);
  },

  restore(view) {
    filtering.only = view.get("only");
    filtering.not = view.getAll("not");
    filtering.each = view.has("each") ? view.get("each") === "1" : null;
    filtering.fold = view.get("fold") === "1";
    fields.restore(view);
    byId("least").value = view.get("least") || 0;
    fields.offer();
  },

  clear() {
    filtering.restore(new URLSearchParams());
    filtering.offer([]);
  },

  // Show chips for the people of the results, and a row for each field that can be filtered by.
  offer(found) {
    const counts = new Map();
    for (const { person } of found) if (person) counts.set(person, (counts.get(person) || 0) + 1);
    const chosen = [...(filtering.only === null ? [] : [filtering.only]), ...filtering.not];
    const others = [...counts.keys()].filter((person) => !chosen.includes(person)).slice(0, 6);
    const people = counts.size + chosen.length > 1 ? [...chosen, ...others] : chosen;
    replace(
      byId("filters"),
      people.map((person) => filtering.chip(person, counts.get(person))),
    );
    byId("each").checked = filtering.takesEach();
    byId("each").disabled = filtering.only !== null;
    byId("fold").checked = filtering.fold;
    byId("fold").disabled = filtering.takesEach();
    byId("person").value = filtering.only || "";
    byId("filters-reset").hidden = !filtering.any();
    fields.offer();
    filtering.hide();
  },

  // A person: only, or not.
  chip(person, count) {
    const text = readable(person) + (count > 1 ? ` (${count})` : "");
    const [only, not] = [filtering.only === person, filtering.not.includes(person)];
    const half = (shown, kind, pressed, onclick) =>
      makeButton(shown, onclick, { className: "chip", name: `${kind} ${readable(person)}`, pressed, key: kind + person });
    const first = half(text, "Only", only, () => filtering.take(person, !only, false));
    const second = half("not", "Not", not, () => filtering.take(person, false, !not));
    return make("span", { className: "chips" }, first, second);
  },

  take(person, only, not) {
    if (only || filtering.only === person) filtering.only = only ? person : null;
    filtering.not = filtering.not.filter((each) => each !== person).concat(not ? [person] : []);
    filtering.changed();
  },

  changed() {
    saveView();
    searching.run();
  },

  // Hide the results below the least probability.
  hide() {
    const cards = [...byId("results").children];
    byId("least-label").hidden = !cards.some((card) => card.dataset.probability);
    byId("least-value").value = `${byId("least").value} %`;
    for (const card of cards)
      card.hidden = Boolean(card.dataset.probability) && Number(card.dataset.probability) < filtering.least();
    const hidden = cards.filter((card) => card.hidden).length;
    byId("hidden-count").textContent = hidden ? `${hidden} of ${cards.length} results hidden` : "";
  },
};

byId("least").oninput = filtering.hide;
byId("least").onchange = () => saveView();
byId("each").onchange = () => {
  filtering.each = byId("each").checked === filtering.suggestsEach() ? null : byId("each").checked;
  filtering.changed();
};
byId("fold").onchange = () => {
  filtering.fold = byId("fold").checked;
  filtering.changed();
};
byId("person").onchange = () => {
  const person = byId("person").value.trim();
  const known = filtering.info.people.map((each) => String(each.value));
  filtering.only = known.find((each) => each === person || readable(each) === person) || person || null;
  filtering.not = filtering.not.filter((each) => each !== filtering.only);
  filtering.changed();
};
byId("filters-reset").onclick = () => {
  byId("main").focus({ preventScroll: true }); // the button goes
  filtering.clear();
  filtering.changed();
};
