// The denoise view: a noisy image in, and a wipe between it and the denoised image.
"use strict";

const LARGE = 1_500_000; // pixels; more are denoised by a job

const denoising = {
  file: null,
  request: null, // the request in progress
  models: {}, // denoisers by name
  asked: "", // the values of the last request
  urls: [], // object URLs of the images shown
  images: [], // before and after, as the dialog shows them

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

  async take(file) {
    await started;
    if (!byId("denoise-model").value) return showError(new Error(byId("denoise-empty").textContent));
    denoising.file = file;
    byId("denoise-name").textContent = file.name || "pasted";
    await denoising.run();
  },

  async run() {
    if (!denoising.file) return;
    const request = renew(denoising);
    byId("denoised").setAttribute("aria-busy", "true");
    byId("denoise-status").textContent = "";
    try {
      const values = denoising.values();
      denoising.asked = JSON.stringify(values);
      const image = await waitFor("Denoising…", (signal, say) => denoising.ask(values, signal, say), request);
      if (denoising.request !== request) return;
      showError(null);
      denoising.show(image, values);
    } catch (error) {
      if (denoising.request !== request) return;
      byId("denoised").hidden = true;
      byId("denoise-empty").hidden = false;
      if (error.name === "AbortError") byId("denoise-status").textContent = "Cancelled.";
      else showError(error);
    } finally {
      if (denoising.request === request) byId("denoised").setAttribute("aria-busy", "false");
    }
  },

  // Return {name, status, sigma, blob} of the file as it is, of a large one by a job.
  async ask(values, signal, say) {
    const { file } = denoising;
    if ((await denoising.pixels(file)) > LARGE) return denoising.askJob(values, signal, say);
    try {
      const { images } = await service.sendFiles("denoise", values, [file], { signal });
      return { ...images[0], blob: pngBlob(images[0].image) };
    } catch (error) {
      if (error.code !== "too-slow") throw error;
      return denoising.askJob(values, signal, say);
    }
  },

  async askJob(values, signal, say) {
    const started = await service.sendFiles("denoise?job=1", values, [denoising.file], { signal });
    const job = await followJob(started, signal, (now) => say(`Denoising: ${progress(now)}`));
    if (job.state === "cancelled") throw new DOMException("cancelled", "AbortError");
    if (job.problem) throw new Error(job.problem.detail || job.problem.title);
    const { sigma = null, status = "cleaned" } = job.report || {};
    return {
      name: denoising.file.name || "pasted",
      sigma,
      status,
      blob: await service.blob(`jobs/${job.id}/image`, { signal }),
    };
  },

  async pixels(file) {
    const bitmap = await decode(file);
    if (!bitmap) return 0;
    const count = bitmap.width * bitmap.height;
    bitmap.close();
    return count;
  },

  show(image, values) {
    denoising.urls.forEach((url) => URL.revokeObjectURL(url));
    denoising.urls = [URL.createObjectURL(denoising.file), URL.createObjectURL(image.blob)];
    byId("denoised").hidden = false;
    byId("denoise-empty").hidden = true;
    denoising.wipe(...denoising.urls);
    byId("denoise-save").href = denoising.urls[1];
    const saved = `${image.name.replace(/\.\w+$/, "")}-denoised.png`;
    byId("denoise-save").download = saved;
    const estimated = values.sigma === "auto";
    const level = estimated ? (image.sigma === null ? "" : image.sigma.toFixed(0)) : Number(values.sigma);
    const noise = `${estimated ? "estimated noise" : "noise"} ${level} of 255${estimated ? "" : ", as given"}`;
    const part = Number(values.strength) !== 1 ? `, strength ${Math.round(100 * values.strength)} %` : "";
    const why = estimated && Number(values.strength) > 0 ? ", hardly any noise" : "";
    const verdict = image.status === "clean" ? `Unchanged${why}` : "Denoised";
    byId("denoise-status").textContent = level === "" ? `${verdict}${part}` : `${verdict}: ${noise}${part}`;
    const facts = [["Noise", byId("denoise-status").textContent]];
    const entry = (name, blob) => ({
      name,
      facts,
      saved: name,
      blob: async () => blob,
      search: () => searching.take(new File([blob], name, { type: blob.type })),
    });
    denoising.images = [entry(image.name, denoising.file), entry(saved, image.blob)];
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
onFile(byId("denoise-file"), denoising.take);
byId("denoise-search").onclick = () => denoising.images[1].search();
byId("denoise-open").onclick = () => showing.open(denoising.images, 1);
onSubmit(byId("denoise-form"), denoising.run);
