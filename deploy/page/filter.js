// Filters of the results: people, metadata, the best of each person, and a least probability.
"use strict";

const MOST = 50; // people that are offered
const INTERNAL = ["mtime_ns", "size"]; // numbers of the file, not of the image

const filtering = {
  info: { people: [], fields: [] }, // what is known of the collection
  collection: "",
  only: null, // a person
  not: [], // people
  each: null, // the best of each person only; null: as the collection suggests
  ranges: {}, // [from, to] as text, by field
  texts: {}, // a value by field

  // Learn the people and the fields of the collection.
  async learn(signal) {
    const name = byId("collection").value;
    if (!name || filtering.collection === name) return;
    filtering.collection = name;
    const path = encodeURIComponent(name);
    let info = service.about && (await service.json(`collections/${path}`, { signal }).catch(() => null));
    if (!info) {
      const facets = await service.json(`facets?collection=${path}&field=person&most=${MOST}`, { signal }).catch(() => ({ values: [] }));
      info = { people: facets.values };
    }
    if (filtering.collection !== name) return;
    filtering.info = { people: info.people || [], fields: (info.fields || []).filter((field) => filtering.usable(field.name)) };
    fill(byId("people"), filtering.info.people.map((each) => String(each.value)));
    byId("person-label").hidden = byId("each-label").hidden = !filtering.info.people.length;
    filtering.offerFields([]);
  },

  usable: (field) => !INTERNAL.includes(field) && !/["\\]/.test(field),

  // More people than one page has results: the best of each, so that the first does not fill it.
  suggestsEach: () => filtering.info.people.length > Math.min(Number(byId("k").value), MOST - 1),
  takesEach: () => !filtering.only && (filtering.each === null ? filtering.suggestsEach() : filtering.each),

  // The parameters of a search.
  values() {
    const quoted = (text) => `"${text.replace(/["\\]/g, "\\$&")}"`;
    const named = (field) => (/[=!<>~,]/.test(field) ? quoted(field) : field);
    const where = filtering.not.map((person) => `person!=${quoted(person)}`);
    if (filtering.only !== null) where.push(`person=${quoted(filtering.only)}`);
    for (const [field, [from, to]] of Object.entries(filtering.ranges)) {
      if (from !== "") where.push(`${named(field)}>=${Number(from)}`);
      if (to !== "") where.push(`${named(field)}<=${Number(to)}`);
    }
    for (const [field, text] of Object.entries(filtering.texts)) where.push(`${named(field)}=${quoted(text)}`);
    return { ...(where.length ? { where: where.join(", ") } : {}), ...(filtering.takesEach() ? { group_by: "person" } : {}) };
  },

  least: () => Number(byId("least").value) / 100,
  any: () => Boolean(filtering.values().where),

  save(view) {
    if (filtering.only !== null) view.set("only", filtering.only);
    for (const person of filtering.not) view.append("not", person);
    if (filtering.each !== null) view.set("each", filtering.each ? "1" : "0");
    for (const [field, [from, to]] of Object.entries(filtering.ranges)) view.append("range", `${from}..${to}:${field}`);
    for (const [field, text] of Object.entries(filtering.texts)) view.append("value", `${field}:${text}`);
    if (filtering.least()) view.set("least", byId("least").value);
  },

  restore(view) {
    filtering.only = view.get("only");
    filtering.not = view.getAll("not");
    filtering.each = view.has("each") ? view.get("each") === "1" : null;
    const ranges = view.getAll("range").map((text) => /^(-?[\d.e+]*)\.\.(-?[\d.e+]*):(.+)$/.exec(text)).filter(Boolean);
    filtering.ranges = Object.fromEntries(ranges.map(([, from, to, field]) => [field, [from, to]]));
    filtering.texts = Object.fromEntries(view.getAll("value").map((text) => /^([^:]+):(.*)$/.exec(text)).filter(Boolean).map((each) => each.slice(1)));
    byId("least").value = view.get("least") || 0;
    filtering.offerFields([]);
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
    replace(byId("filters"), people.map((person) => filtering.chip(person, counts.get(person))));
    byId("each").checked = filtering.takesEach();
    byId("each").disabled = filtering.only !== null;
    byId("person").value = filtering.only || "";
    byId("filters-reset").hidden = !filtering.any();
    filtering.offerFields(found);
    filtering.hide();
  },

  // A person: only, or not.
  chip(person, count) {
    const text = readable(person) + (count > 1 ? ` (${count})` : "");
    const [only, not] = [filtering.only === person, filtering.not.includes(person)];
    const first = makeButton(text, () => filtering.take(person, !only, false), { className: "chip", name: `Only ${readable(person)}`, pressed: only, key: `only ${person}` });
    const second = makeButton("not", () => filtering.take(person, false, !not), { className: "chip", name: `Not ${readable(person)}`, pressed: not, key: `not ${person}` });
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

  // The fields as they are known; of an earlier service as the results have them.
  fields(found) {
    const numbers = new Map(filtering.info.fields.filter((field) => field.kind === "number").map((each) => [each.name, each]));
    for (const { payload } of numbers.size ? [] : found) {
      for (const [name, value] of Object.entries(payload)) {
        if (typeof value !== "number" || !filtering.usable(name)) continue;
        const { min, max } = numbers.get(name) || { min: value, max: value };
        numbers.set(name, { name, kind: "number", min: Math.min(min, value), max: Math.max(max, value) });
      }
    }
    for (const name of Object.keys(filtering.ranges)) if (!numbers.has(name)) numbers.set(name, { name, kind: "number" });
    const texts = filtering.info.fields.filter((field) => field.kind === "text" && field.values && field.name !== "person");
    return [...numbers.values(), ...texts].slice(0, 40);
  },

  offerFields(found) {
    const fields = filtering.fields(found);
    if (!found.length && !filtering.info.fields.length && !fields.length) return byId("fields").replaceChildren();
    replace(byId("fields"), fields.map((field) => (field.kind === "number" ? filtering.range(field) : filtering.value(field))));
  },

  range({ name, min, max }) {
    const ends = ["from", "to"].map((end, n) => {
      const hint = [min, max][n];
      const shown = hint === undefined ? "" : String(Number(hint.toPrecision(3)));
      const input = make("input", { type: "number", step: "any", placeholder: shown, value: (filtering.ranges[name] || ["", ""])[n] });
      input.setAttribute("aria-label", `${readable(name)} ${end}`);
      input.dataset.key = `${name} ${end}`;
      input.onchange = () => {
        const now = [...(filtering.ranges[name] || ["", ""])];
        now[n] = input.value;
        filtering.ranges[name] = now;
        if (now.every((each) => each === "")) delete filtering.ranges[name];
        filtering.changed();
      };
      return input;
    });
    return make("div", { className: "range" }, make("span", { textContent: readable(name) }), ends[0], "to", ends[1]);
  },

  value({ name, values }) {
    const select = make("select", {});
    const texts = values.map((each) => String(each.value));
    fill(select, ["", ...texts], ["any", ...values.map((each) => `${each.value} (${each.count})`)]);
    select.value = filtering.texts[name] || "";
    select.dataset.key = name;
    select.onchange = () => {
      filtering.texts[name] = select.value;
      if (!select.value) delete filtering.texts[name];
      filtering.changed();
    };
    return make("label", { className: "range" }, make("span", { textContent: readable(name) }), select);
  },

  // Hide the results below the least probability.
  hide() {
    const cards = [...byId("results").children];
    byId("least-label").hidden = !cards.some((card) => card.dataset.probability);
    byId("least-value").value = `${byId("least").value} %`;
    for (const card of cards) card.hidden = Boolean(card.dataset.probability) && Number(card.dataset.probability) < filtering.least();
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
byId("person").onchange = () => {
  const person = byId("person").value.trim();
  const known = filtering.info.people.map((each) => String(each.value));
  filtering.only = known.find((each) => each === person || readable(each) === person) || person || null;
  filtering.not = filtering.not.filter((each) => each !== filtering.only);
  filtering.changed();
};
byId("filters-reset").onclick = () => {
  filtering.clear();
  filtering.changed();
};
