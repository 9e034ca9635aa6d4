// What is done to a query before it is searched with: noise taken off, attributes added; drawn while one slides.
"use strict";

const editing = {
  collections: {}, // by name
  models: {}, // by name
  going: null, // the request under way

  offer(collections, models) {
    editing.collections = Object.fromEntries(collections.map((each) => [each.name, each]));
    editing.models = Object.fromEntries(models.map((model) => [model.name, model]));
    byId("clean-first").hidden = !editing.cleaner();
    editing.offerSliders();
  },

  collection: () => editing.collections[byId("collection").value],
  attributes() {
    const model = editing.collection() && editing.models[editing.collection().model];
    return model && model.draws ? model.attributes.slice(0, 40) : [];
  },
  cleaner() {
    const names = Object.keys(editing.models).filter((name) => editing.models[name].kind === "denoiser");
    return names.includes("denoise") ? "denoise" : names[0];
  },
  sliders: () => [...byId("sliders").querySelectorAll("input")],

  // Have a slider for each attribute of the collection's model; those that were there keep what they say.
  offerSliders() {
    const before = editing.strengths();
    const attributes = editing.attributes();
    byId("sliders-of").replaceChildren(...attributes.map((name) => editing.slider(name)));
    byId("sliders").hidden = !attributes.length;
    editing.set(before);
  },

  slider(name) {
    const range = make("input", { type: "range", min: -4, max: 4, step: 0.5, value: 0, name });
    range.oninput = () => {
      editing.tell();
      editing.draw.soon();
      editing.settled();
    };
    return make("label", {}, make("span", { textContent: readable(name) }), range, make("output", {}));
  },

  // Attribute to strength, of those that are not 0.
  strengths() {
    const moved = editing.sliders().filter((range) => Number(range.value));
    return Object.fromEntries(moved.map((range) => [range.name, Number(range.value)]));
  },

  set(strengths) {
    for (const range of editing.sliders()) range.value = strengths[range.name] || 0;
    editing.tell();
  },

  tell() {
    for (const range of editing.sliders()) {
      const value = Number(range.value);
      const said = value > 0 ? `+${value}` : `${value}`.replace("-", "−");
      range.nextSibling.value = said;
      range.setAttribute("aria-valuetext", value ? `${said} standard deviations` : "unchanged");
    }
    byId("sliders-reset").disabled = !Object.keys(editing.strengths()).length;
  },

  // What a search is told of it.
  values() {
    const add = Object.entries(editing.strengths()).map(([name, value]) => `${name}=${value}`);
    const clean = editing.cleaning() ? { clean: true, clean_model: editing.cleaner() } : {};
    return { ...(add.length ? { add } : {}), ...clean };
  },
  cleaning: () => byId("clean-query").checked && Boolean(editing.cleaner()),

  // Draw the query as the model sees it, and as it is searched with.
  async draw() {
    if (editing.going) editing.going.abort();
    const values = editing.values();
    const attributes = editing.attributes();
    const query = searching.file || searching.item;
    byId("edited").hidden = !(query && attributes.length && (values.add || values.clean));
    if (byId("edited").hidden) return;
    const going = (editing.going = new AbortController());
    const options = { signal: going.signal };
    const { name, model, crop } = editing.collection();
    const asked = { ...values, model, add: values.add || [`${attributes[0]}=0`], steps: "0:1:2" };
    try {
      const told = searching.item
        ? await service.send("edit", { ...asked, item: searching.item, collection: name }, options)
        : await service.sendFiles("edit", { ...asked, crop }, [searching.file], options);
      const [seen, changed] = told.rows[0];
      byId("seen").src = png(seen);
      byId("changed").src = png(changed);
      byId("changed-to").hidden = !values.add;
      const moved = editing.sliders().filter((range) => Number(range.value));
      const words = moved.map((range) => `${readable(range.name)} ${range.nextSibling.value}`);
      byId("changed-said").textContent = words.join(", ");
    } catch (error) {
      if (error.name !== "AbortError") byId("edited").hidden = true; // the search says why
    }
  },
};

editing.draw.soon = later(100, () => editing.draw());
editing.settled = later(400, () => {
  remember();
  searching.run();
});
byId("sliders-reset").onclick = () => {
  editing.set({});
  editing.draw();
  editing.settled();
  byId("sliders").querySelector("input").focus();
};
byId("clean-query").onchange = () => {
  editing.draw();
  editing.settled();
};
