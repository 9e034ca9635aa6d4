// The generate and reconstruct views.
"use strict";

const generating = {
  models: {},

  offer(models) {
    generating.models = Object.fromEntries(models.map((model) => [model.name, model]));
    const names = models.filter((model) => model.draws).map((model) => model.name);
    names.sort((one, two) => generating.models[two].classes.length - generating.models[one].classes.length);
    fill(byId("generate-model"), names);
    fill(byId("reconstruct-model"), [...names].sort((one, two) => (two === "faces") - (one === "faces")));
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
      const response = await service.send("generate", values);
      showError(null);
      const table = chosen === "all";
      space.classList.toggle("wraps", !table);
      space.replaceChildren(
        ...response.rows.map((row) =>
          make("div", { className: "line" }, ...row.map((text, n) => generating.figure(text, response.classes, n))),
        ),
      );
      byId("generated-empty").hidden = true;
      saveView();
    } catch (error) {
      showError(error);
    } finally {
      space.setAttribute("aria-busy", "false");
    }
  },

  figure(text, classes, n) {
    const name = classes && classes[n] !== undefined ? classes[n] : "";
    const image = make("img", { src: png(text), alt: name ? `generated: ${name}` : "generated" });
    const figure = make("figure", {}, image);
    if (name) figure.append(make("figcaption", { textContent: name }));
    return figure;
  },

  async reconstruct(file) {
    if (!file) return;
    try {
      const response = await service.sendFiles("reconstruct", { model: byId("reconstruct-model").value }, [file]);
      showError(null);
      const [image] = response.images;
      generating.wipe(png(image.original), png(image.reconstruction));
      byId("reconstruct-status").textContent = `${image.name}: ${image.psnr.toFixed(1)} dB`;
      byId("wipe").hidden = false;
      byId("reconstruct-empty").hidden = true;
    } catch (error) {
      showError(error);
    }
  },
};

generating.wipe = wiper(byId("reconstruct-wipe"), byId("wipe-at"));
