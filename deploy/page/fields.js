// Filters by the fields of images: ranges of numbers, and values of text.
"use strict";

const INTERNAL = ["mtime_ns", "size"]; // numbers of the file, not of the image

const quoted = (text) => `"${text.replace(/["\\]/g, "\\$&")}"`;

const fields = {
  ranges: {}, // [from, to] as text, by field
  texts: {}, // a value by field

  usable: (field) => !INTERNAL.includes(field) && !/["\\]/.test(field),

  // The conditions of a search.
  conditions() {
    const named = (field) => (/[=!<>~,]/.test(field) ? quoted(field) : field);
    const conditions = [];
    for (const [field, [from, to]] of Object.entries(fields.ranges)) {
      if (from !== "") conditions.push(`${named(field)}>=${Number(from)}`);
      if (to !== "") conditions.push(`${named(field)}<=${Number(to)}`);
    }
    for (const [field, text] of Object.entries(fields.texts)) conditions.push(`${named(field)}=${quoted(text)}`);
    return conditions;
  },

  save(view) {
    for (const [field, [from, to]] of Object.entries(fields.ranges)) view.append("range", `${from}..${to}:${field}`);
    for (const [field, text] of Object.entries(fields.texts)) view.append("value", `${field}:${text}`);
  },

  restore(view) {
    const read = (name, form) =>
      view
        .getAll(name)
        .map((text) => form.exec(text))
        .filter(Boolean);
    const ranges = read("range", /^(-?[\d.e+-]*?)\.\.(-?[\d.e+-]*):(.+)$/);
    fields.ranges = Object.fromEntries(ranges.map(([, from, to, field]) => [field, [from, to]]));
    fields.texts = Object.fromEntries(read("value", /^([^:]+):(.*)$/).map((found) => found.slice(1)));
  },

  // The fields as they are known, numbers first.
  known() {
    const { fields: all } = filtering.info;
    const numbers = all.filter((field) => field.kind === "number");
    for (const name of Object.keys(fields.ranges))
      if (!numbers.some((field) => field.name === name)) numbers.push({ name, kind: "number" });
    const texts = all.filter((field) => field.kind === "text" && field.values && field.name !== "person");
    return [...numbers, ...texts].slice(0, 40);
  },

  offer() {
    const known = fields.known();
    replace(
      byId("fields"),
      known.map((field) => (field.kind === "number" ? fields.range(field) : fields.value(field))),
    );
  },

  range({ name, min, max }) {
    const ends = ["from", "to"].map((end, n) => {
      const hint = [min, max][n];
      const shown = hint === undefined ? "" : String(Number(hint.toPrecision(3)));
      const input = make("input", {
        type: "number",
        step: "any",
        placeholder: shown,
        value: (fields.ranges[name] || ["", ""])[n],
      });
      input.setAttribute("aria-label", `${readable(name)} ${end}`);
      input.dataset.key = `${name} ${end}`;
      input.onchange = () => {
        const now = [...(fields.ranges[name] || ["", ""])];
        now[n] = input.value;
        fields.ranges[name] = now;
        if (now.every((each) => each === "")) delete fields.ranges[name];
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
    select.value = fields.texts[name] || "";
    select.dataset.key = name;
    select.onchange = () => {
      fields.texts[name] = select.value;
      if (!select.value) delete fields.texts[name];
      filtering.changed();
    };
    return make("label", { className: "range" }, make("span", { textContent: readable(name) }), select);
  },
};
