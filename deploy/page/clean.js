// The view that cleans: a noisy picture in, a wipe between it and the clean one out.
"use strict";

const cleaning = {
  file: null,
  going: null, // the request under way
  models: {},
  asked: "", // what was asked last
  urls: [], // of the pictures shown

  offer(models) {
    const cleaners = models.filter((model) => model.kind === "denoiser");
    cleaning.models = Object.fromEntries(cleaners.map((model) => [model.name, model]));
    fill(byId("clean-model"), Object.keys(cleaning.models));
    for (const element of byId("clean").querySelectorAll("input, select")) element.disabled = !cleaners.length;
    if (!cleaners.length) {
      byId("clean-empty").textContent = "No cleaner is served here: lookalike serve --model denoise serves one.";
    }
    cleaning.offerNoise();
  },

  // Let the noise be told within what the cleaner knows, where it is to be told.
  offerNoise() {
    const model = cleaning.models[byId("clean-model").value];
    if (model) byId("clean-sigma").max = model.sigma[1];
    byId("clean-told").hidden = byId("clean-noise").value !== "told";
    byId("clean-strength-said").value = `${Math.round(100 * byId("clean-strength").value)} %`;
  },

  values() {
    return {
      model: byId("clean-model").value,
      sigma: byId("clean-noise").value === "told" ? byId("clean-sigma").value || "0" : "auto",
      strength: byId("clean-strength").value,
    };
  },

  recall(view) {
    choose(byId("clean-model"), view.get("model"));
    const told = view.has("sigma") && view.get("sigma") !== "auto";
    byId("clean-noise").value = told ? "told" : "auto";
    if (told) byId("clean-sigma").value = view.get("sigma");
    if (view.has("strength")) byId("clean-strength").value = view.get("strength");
    cleaning.offerNoise();
    if (JSON.stringify(cleaning.values()) !== cleaning.asked) cleaning.run();
  },

  take(file) {
    if (!file || !byId("clean-model").value) return;
    cleaning.file = file;
    byId("clean-name").textContent = file.name || "pasted";
    cleaning.run();
  },

  async run() {
    if (!cleaning.file) return;
    if (cleaning.going) cleaning.going.abort();
    const going = (cleaning.going = new AbortController());
    byId("cleaned").setAttribute("aria-busy", "true");
    byId("clean-said").textContent = "Cleaning…";
    try {
      const values = cleaning.values();
      cleaning.asked = JSON.stringify(values);
      const told = await service.sendFiles("denoise", values, [cleaning.file], { signal: going.signal });
      say(null);
      cleaning.show(told.images[0], values);
    } catch (error) {
      if (error.name === "AbortError") return;
      byId("clean-said").textContent = "";
      byId("cleaned").hidden = true;
      byId("clean-empty").hidden = false;
      say(error);
    } finally {
      if (cleaning.going === going) byId("cleaned").setAttribute("aria-busy", "false");
    }
  },

  show(image, values) {
    cleaning.urls.forEach((url) => URL.revokeObjectURL(url));
    cleaning.urls = [URL.createObjectURL(cleaning.file), URL.createObjectURL(pngBlob(image.image))];
    byId("cleaned").hidden = false;
    byId("clean-empty").hidden = true;
    cleaning.wipe(...cleaning.urls);
    byId("clean-save").href = cleaning.urls[1];
    byId("clean-save").download = `${image.name.replace(/\.\w+$/, "")}-clean.png`;
    const found = `noise of about ${image.sigma.toFixed(0)} of 255`;
    const told = values.sigma === "auto" ? "" : `, cleaned as if it were ${Number(values.sigma)}`;
    const part = Number(values.strength) < 1 ? `, by ${Math.round(100 * values.strength)} %` : "";
    byId("clean-said").textContent =
      image.status === "clean" ? `Left as it is, clean enough: ${found}` : `Cleaned: ${found}${told}${part}`;
  },
};

cleaning.wipe = wiper(byId("clean-wipe"), byId("clean-at"));
cleaning.changed = later(300, () => {
  remember();
  cleaning.run();
});
for (const id of ["clean-model", "clean-noise", "clean-sigma", "clean-strength"]) {
  byId(id).onchange = () => {
    cleaning.offerNoise();
    cleaning.changed();
  };
}
byId("clean-strength").oninput = cleaning.offerNoise;
byId("clean-file").onchange = (event) => cleaning.take(event.target.files[0]);
byId("clean-form").onsubmit = (event) => {
  event.preventDefault();
  cleaning.run();
};
