// Edits of a query before the search: denoised, attributes added; previewed while a slider moves.
"use strict";

const editing = {
  collections: {}, // by name
  models: {}, // by name
  request: null, // the request in progress
  drawn: ["", ""], // the URLs of the query as the model sees it, and as it is searched with

  offer(collections, models) {
    editing.collections = Object.fromEntries(collections.map((each) => [each.name, each]));
    editing.models = Object.fromEntries(models.map((model) => [model.name, model]));
    byId("denoise-first").hidden = !editing.denoiser();
    editing.offerSliders();
  },

  collection: () => editing.collections[byId("collection").value],
  model: () => editing.collection() && editing.models[editing.collection().model],
  attributes() {
    const model = editing.model();
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
    const model = editing.model();
    byId("words-form").hidden = !(model && model.text);
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
    const request = renew(editing);
    const { picture, item } = searching;
    const values = editing.values();
    byId("edited").hidden = !(editing.attributes().length && values.add);
    if (!picture && !item) return;
    try {
      const [seen, changed] = await editing.draw(values, request.signal);
      if (editing.request !== request) return;
      editing.drawn = [seen, changed];
      byId("seen-figure").hidden = !seen;
      if (seen) byId("seen").src = seen;
      if (!values.add) return;
      byId("changed").src = changed;
      byId("changed-caption").textContent = editing.words();
    } catch (error) {
      if (error.name === "AbortError") return;
      byId("edited").hidden = byId("seen-figure").hidden = true; // the search shows why
    }
  },

  // Return the URLs of the query as the model sees it and as it is searched with; empty where they cannot be drawn.
  async draw(values, signal) {
    const { picture, item } = searching;
    const { name: collection, crop } = editing.collection();
    const model = editing.model();
    const [first] = editing.attributes();
    if (first) {
      const asked = { ...values, model: model.name, add: values.add || [`${first}=0`], steps: "0:1:2" };
      const { rows } = item
        ? await service.send("edit", { ...asked, item, collection }, { signal })
        : await service.sendFiles("edit", { ...asked, ...searching.part.values(true) }, [toSend(picture, values)], { signal });
      return rows[0].map(png);
    }
    if (model && model.draws && picture) {
      const asked = { model: model.name, ...searching.part.values(true) };
      const { images } = await service.sendFiles("reconstruct", asked, [picture.sent], { signal });
      return [png(images[0].original), ""];
    }
    const side = (model && model.size) || 64;
    if (picture) return [await drawPart(picture.sent, searching.part.values(true).crop || "full", side), ""];
    // A thumbnail has half as much again around what the model sees, as far as the image goes.
    const fraction = crop.startsWith("faces:") ? 2 / 3 : crop.startsWith("center:") ? Number(crop.slice(7)) : 1;
    const part = Math.max(2 / 3, Math.min(1, fraction));
    const thumbnail = await service.blob(itemPath(item, `thumbnail?side=${Math.min(512, 2 * side)}`), { signal });
    return [await drawPart(thumbnail, `center:${part}`, side), ""];
  },

  words() {
    const moved = editing.sliders().filter((range) => Number(range.value));
    return moved.map((range) => `${readable(range.name)} ${range.nextSibling.value}`).join(", ");
  },

  // The images that are drawn, as the dialog shows them.
  entries() {
    const [seen, changed] = editing.drawn;
    const model = editing.collection().model;
    const query = byId("query-name").textContent.replace(/\.\w{1,5}$/, "");
    const about = [["Model", model]];
    const all = [made(seen.split(",")[1], `${query}, as the model sees it`, about, model)];
    if (changed && !byId("edited").hidden) {
      all.push(made(changed.split(",")[1], `${query}, ${editing.words()}`, about, model));
    }
    return all;
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
for (const [at, id] of ["seen", "changed"].entries()) {
  const figure = byId(id).parentElement;
  figure.prepend(makeOpener(byId(id), editing.entries, at, `Show in full: ${byId(id).alt}`));
}
