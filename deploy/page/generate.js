// The generate and reconstruct views.
"use strict";

const generating = {
  models: {},
  picture: null, // the one that is reconstructed
  images: [], // of the reconstruction, as the dialog shows them

  offer(models) {
    generating.models = Object.fromEntries(models.map((model) => [model.name, model]));
    const names = models.filter((model) => model.draws).map((model) => model.name);
    names.sort((one, two) => generating.models[two].classes.length - generating.models[one].classes.length);
    fill(byId("generate-model"), names);
    fill(
      byId("reconstruct-model"),
      [...names].sort((one, two) => (two === "faces") - (one === "faces")),
    );
    const needing = "#generate-model, #generate button, #reconstruct-model, #reconstruct-file";
    for (const each of document.querySelectorAll(needing)) each.disabled = !names.length;
    generating.offerClasses();
  },

  offerClasses() {
    const model = generating.models[byId("generate-model").value];
    const classes = model ? model.classes.slice(0, 200) : [];
    const several = classes.length > 1 && classes.length <= 100;
    fill(
      byId("generate-class"),
      ["", ...(several ? ["all"] : []), ...classes],
      ["any", ...(several ? ["each, from the same latent"] : []), ...classes],
    );
    byId("generate-class").disabled = !classes.length;
  },

  async generate() {
    const values = {
      model: byId("generate-model").value,
      n: Number(byId("generate-n").value),
      seed: Number(byId("generate-seed").value),
      temperature: Number(byId("generate-temperature").value),
    };
    const chosen = byId("generate-class").value;
    if (chosen) values.class = chosen;
    const space = byId("generated");
    space.setAttribute("aria-busy", "true");
    try {
      const response = await waitFor("Generating…", (signal) => service.send("generate", values, { signal }));
      showError(null);
      const table = chosen === "all";
      space.classList.toggle("wraps", !table);
      generating.show(response, values);
      byId("generated-empty").hidden = true;
      saveView();
    } catch (error) {
      showError(error);
    } finally {
      space.setAttribute("aria-busy", "false");
    }
  },

  show({ rows, classes }, { model, seed, temperature }) {
    const entries = [];
    const facts = Object.entries({ Model: model, Seed: seed, Temperature: temperature });
    const figure = (text, n) => {
      const name = classes && classes[n] !== undefined ? classes[n] : "";
      const title = `image ${entries.length + 1}${name ? `, class ${name}` : ""}`;
      entries.push(made(text, title, facts, model));
      const image = make("img", { src: png(text), alt: name ? `generated: ${name}` : "generated" });
      const each = make("figure", {}, makeOpener(image, entries, entries.length - 1, `Show in full: ${title}`));
      if (name) each.append(make("figcaption", { textContent: name }));
      return each;
    };
    replace(
      byId("generated"),
      rows.map((row) => make("div", { className: "line" }, ...row.map(figure))),
    );
  },

  // Reconstruct a file, or the picture of before with another model or part.
  async reconstruct(file) {
    try {
      await started;
      const model = generating.models[byId("reconstruct-model").value];
      if (!model) return;
      if (file) generating.picture = await waitFor("Reading the image…", () => readPicture(file));
      if (!generating.picture) return;
      byId("reconstruct-empty").hidden = true;
      await waitFor("Finding faces…", (signal) => generating.part.show(generating.picture, model, signal));
      await generating.draw(model.name);
    } catch (error) {
      showError(error);
    }
  },

  async draw(model) {
    const asked = { model, ...generating.part.values() };
    const request = renew(generating);
    const ask = (signal) => service.sendFiles("reconstruct", asked, [generating.picture.sent], { signal });
    const { images } = await waitFor("Reconstructing…", ask, request);
    showError(null);
    const [image] = images;
    generating.wipe(png(image.original), png(image.reconstruction));
    byId("reconstruct-status").textContent = `${image.name}: ${image.psnr.toFixed(1)} dB`;
    byId("wipe").hidden = false;
    const facts = Object.entries({ Model: model, PSNR: `${image.psnr.toFixed(1)} dB` });
    generating.images = [
      made(image.original, `${image.name}, as the model sees it`, facts, model),
      made(image.reconstruction, `${image.name}, reconstruction`, facts, model),
    ];
  },
};

generating.wipe = wiper(byId("reconstruct-wipe"), byId("wipe-at"));
generating.redraw = debounce(150, () => {
  generating.draw(byId("reconstruct-model").value).catch(showError);
});
generating.part = chooser(byId("reconstruct-part"), generating.redraw, "As the model crops it");
byId("reconstruct-search").onclick = () => generating.images[1].search();
byId("reconstruct-open").onclick = () => showing.open(generating.images, 1);
