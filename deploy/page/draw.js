// The views that draw: pictures that never were, and what a model keeps of one.
"use strict";

const drawing = {
  models: {},

  offer(models) {
    drawing.models = Object.fromEntries(models.map((model) => [model.name, model]));
    const names = models.filter((model) => model.draws).map((model) => model.name);
    names.sort((one, two) => drawing.models[two].classes.length - drawing.models[one].classes.length);
    fill(byId("generate-model"), names);
    fill(byId("keep-model"), [...names].sort((one, two) => (two === "faces") - (one === "faces")));
    drawing.offerClasses();
  },

  offerClasses() {
    const model = drawing.models[byId("generate-model").value];
    const classes = model ? model.classes.slice(0, 200) : [];
    const several = classes.length > 1 && classes.length <= 100;
    fill(
      byId("generate-class"),
      ["", ...(several ? ["all"] : []), ...classes],
      ["any", ...(several ? ["each, of the same latent"] : []), ...classes],
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
      const told = await service.send("generate", values);
      say(null);
      const table = chosen === "all";
      space.classList.toggle("wraps", !table);
      space.replaceChildren(
        ...told.rows.map((row) =>
          make("div", { className: "line" }, ...row.map((text, n) => drawing.figure(text, told.classes, n))),
        ),
      );
      byId("generated-empty").hidden = true;
      remember();
    } catch (error) {
      say(error);
    } finally {
      space.setAttribute("aria-busy", "false");
    }
  },

  figure(text, classes, n) {
    const name = classes && classes[n] !== undefined ? classes[n] : "";
    const image = make("img", { src: png(text), alt: name ? `drawn: ${name}` : "drawn" });
    const figure = make("figure", {}, image);
    if (name) figure.append(make("figcaption", { textContent: name }));
    return figure;
  },

  async keep(file) {
    if (!file) return;
    try {
      const told = await service.sendFiles("reconstruct", { model: byId("keep-model").value }, [file]);
      say(null);
      const [image] = told.images;
      drawing.wipe(png(image.original), png(image.reconstruction));
      byId("keep-said").textContent = `${image.name}: ${image.psnr.toFixed(1)} dB`;
      byId("wipe").hidden = false;
      byId("keep-empty").hidden = true;
    } catch (error) {
      say(error);
    }
  },
};

drawing.wipe = wiper(byId("keep-wipe"), byId("wipe-at"));
