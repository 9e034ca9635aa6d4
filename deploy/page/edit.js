// Edits of a query before the search: denoised, attributes added; previewed while a slider moves.
"use strict";

const editing = {
  collections: {}, // by name
  models: {}, // by name
  request: null, // the request in progress

  offer(collections, models) {
    editing.collections = Object.fromEntries(collections.map((each) => [each.name, each]));
    editing.models = Object.fromEntries(models.map((model) => [model.name, model]));
    byId("denoise-first").hidden = !editing.denoiser();
    editing.offerSliders();
  },

  collection: () => editing.collections[byId("collection").value],
  attributes() {
    const model = editing.collection() && editing.models[editing.collection().model];
    return model && model.draws ? model.attributes.slice(0, 40) : [];
  },
  denoiser() {
    const names = Object.keys(editing.models).filter((name) => editing.models[name].sigma);
    return names.includes("denoise") ? "denoise" : names[0];
  },
  sliders: () => [...byId("sliders").querySelectorAll("input")],

  // Show a slider for each attribute of the collection's model; existing ones keep their values.
  offerSliders() {
    const before = editing.strengths();
    const attributes = editing.attributes();
    byId("slider-list").replaceChildren(...attributes.map((name) => editing.slider(name)));
    byId("sliders").hidden = !attributes.length;
    editing.set(before);
  },

  slider(name) {
    const range = make("input", { type: "range", min: -4, max: 4, step: 0.5, value: 0, name });
    range.oninput = () => {
      editing.showStrengths();
      editing.previewSoon();
      editing.settled();
    };
    return make("label", {}, make("span", { textContent: readable(name) }), range, make("output", {}));
  },

  // The strengths that are not 0, by attribute.
  strengths() {
    const moved = editing.sliders().filter((range) => Number(range.value));
    return Object.fromEntries(moved.map((range) => [range.name, Number(range.value)]));
  },

  set(strengths) {
    for (const range of editing.sliders()) range.value = strengths[range.name] || 0;
    editing.showStrengths();
  },

  showStrengths() {
    for (const range of editing.sliders()) {
      const value = Number(range.value);
      const text = value > 0 ? `+${value}` : `${value}`.replace("-", "−");
      range.nextSibling.value = text;
      range.setAttribute("aria-valuetext", value ? `${text} standard deviations` : "unchanged");
    }
    byId("sliders-reset").disabled = !Object.keys(editing.strengths()).length;
  },

  // The parameters of a search.
  values() {
    const add = Object.entries(editing.strengths()).map(([name, value]) => `${name}=${value}`);
    const denoise = editing.denoising() ? { denoise: true, denoise_model: editing.denoiser() } : {};
    return { ...(add.length ? { add } : {}), ...denoise };
  },
  denoising: () => byId("denoise-query").checked && Boolean(editing.denoiser()),

  // Show the query as the model sees it, and as it is searched with.
  async preview() {
    if (editing.request) editing.request.abort();
    const values = editing.values();
    const attributes = editing.attributes();
    const query = searching.file || searching.item;
    byId("edited").hidden = !(query && attributes.length && (values.add || values.denoise));
    if (byId("edited").hidden) return;
    const request = (editing.request = new AbortController());
    const options = { signal: request.signal };
    const { name, model, crop } = editing.collection();
    const asked = { ...values, model, add: values.add || [`${attributes[0]}=0`], steps: "0:1:2" };
    try {
      const response = searching.item
        ? await service.send("edit", { ...asked, item: searching.item, collection: name }, options)
        : await service.sendFiles("edit", { ...asked, crop }, [searching.file], options);
      const [seen, changed] = response.rows[0];
      byId("seen").src = png(seen);
      byId("changed").src = png(changed);
      byId("changed-to").hidden = !values.add;
      const moved = editing.sliders().filter((range) => Number(range.value));
      const words = moved.map((range) => `${readable(range.name)} ${range.nextSibling.value}`);
      byId("changed-caption").textContent = words.join(", ");
    } catch (error) {
      if (error.name !== "AbortError") byId("edited").hidden = true; // the search shows why
    }
  },
};

editing.previewSoon = debounce(100, () => editing.preview());
editing.settled = debounce(400, () => {
  saveView();
  searching.run();
});
byId("sliders-reset").onclick = () => {
  editing.set({});
  editing.preview();
  editing.settled();
  byId("sliders").querySelector("input").focus();
};
byId("denoise-query").onchange = () => {
  editing.preview();
  editing.settled();
};
