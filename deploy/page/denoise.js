// The denoise view: a noisy image in, and a wipe between it and the denoised image.
"use strict";

const denoising = {
  file: null,
  request: null, // the request in progress
  models: {}, // denoisers by name
  asked: "", // the values of the last request
  urls: [], // object URLs of the images shown

  // Offer the denoisers of the service: the models that can be given a noise level.
  offer(models) {
    const denoisers = models.filter((model) => model.sigma);
    denoising.models = Object.fromEntries(denoisers.map((model) => [model.name, model]));
    fill(byId("denoise-model"), Object.keys(denoising.models));
    for (const element of byId("denoise").querySelectorAll("input, select")) element.disabled = !denoisers.length;
    if (!denoisers.length) {
      byId("denoise-empty").textContent = "No denoiser is loaded; start the service with --model denoise.";
    }
    denoising.offerNoise();
  },

  // Show the field for the noise level where it is set by hand.
  offerNoise() {
    const model = denoising.models[byId("denoise-model").value];
    if (model) byId("denoise-sigma").max = model.sigma[1];
    byId("denoise-sigma-label").hidden = byId("denoise-noise").value !== "manual";
    byId("denoise-strength-value").value = `${Math.round(100 * byId("denoise-strength").value)} %`;
  },

  values() {
    return {
      model: byId("denoise-model").value,
      sigma: byId("denoise-noise").value === "manual" ? byId("denoise-sigma").value || "0" : "auto",
      strength: byId("denoise-strength").value,
    };
  },

  restoreView(view) {
    choose(byId("denoise-model"), view.get("model"));
    const manual = view.has("sigma") && view.get("sigma") !== "auto";
    byId("denoise-noise").value = manual ? "manual" : "auto";
    if (manual) byId("denoise-sigma").value = view.get("sigma");
    if (view.has("strength")) byId("denoise-strength").value = view.get("strength");
    denoising.offerNoise();
    if (JSON.stringify(denoising.values()) !== denoising.asked) denoising.run();
  },

  take(file) {
    if (!file || !byId("denoise-model").value) return;
    denoising.file = file;
    byId("denoise-name").textContent = file.name || "pasted";
    denoising.run();
  },

  async run() {
    if (!denoising.file) return;
    if (denoising.request) denoising.request.abort();
    const request = (denoising.request = new AbortController());
    byId("denoised").setAttribute("aria-busy", "true");
    byId("denoise-status").textContent = "Denoising…";
    try {
      const values = denoising.values();
      denoising.asked = JSON.stringify(values);
      const response = await service.sendFiles("denoise", values, [denoising.file], { signal: request.signal });
      showError(null);
      denoising.show(response.images[0], values);
    } catch (error) {
      if (error.name === "AbortError") return;
      byId("denoise-status").textContent = "";
      byId("denoised").hidden = true;
      byId("denoise-empty").hidden = false;
      showError(error);
    } finally {
      if (denoising.request === request) byId("denoised").setAttribute("aria-busy", "false");
    }
  },

  show(image, values) {
    denoising.urls.forEach((url) => URL.revokeObjectURL(url));
    denoising.urls = [URL.createObjectURL(denoising.file), URL.createObjectURL(pngBlob(image.image))];
    byId("denoised").hidden = false;
    byId("denoise-empty").hidden = true;
    denoising.wipe(...denoising.urls);
    byId("denoise-save").href = denoising.urls[1];
    byId("denoise-save").download = `${image.name.replace(/\.\w+$/, "")}-denoised.png`;
    const estimated = values.sigma === "auto";
    const level = estimated ? image.sigma.toFixed(0) : Number(values.sigma);
    const noise = `${estimated ? "estimated noise" : "noise"} ${level} of 255${estimated ? "" : ", as given"}`;
    const part = Number(values.strength) !== 1 ? `, strength ${Math.round(100 * values.strength)} %` : "";
    const why = estimated && Number(values.strength) > 0 ? ", hardly any noise" : "";
    const verdict = image.status === "clean" ? `Unchanged${why}` : "Denoised";
    byId("denoise-status").textContent = `${verdict}: ${noise}${part}`;
  },
};

denoising.wipe = wiper(byId("denoise-wipe"), byId("denoise-at"));
denoising.changed = debounce(300, () => {
  saveView();
  denoising.run();
});
for (const id of ["denoise-model", "denoise-noise", "denoise-sigma", "denoise-strength"]) {
  byId(id).onchange = () => {
    denoising.offerNoise();
    denoising.changed();
  };
}
byId("denoise-strength").oninput = denoising.offerNoise;
byId("denoise-file").onchange = (event) => denoising.take(event.target.files[0]);
byId("denoise-form").onsubmit = (event) => {
  event.preventDefault();
  denoising.run();
};
