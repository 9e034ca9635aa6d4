// Indexing a folder from the collections view, and the job that does it.
"use strict";

const indexing = {
  framed: [], // the models that are made for faces
  running: false,

  // Offer the form, where the service lets the page index.
  offer(models, can) {
    byId("index-form").hidden = !can;
    const encoders = models.filter((model) => model.size);
    fill(
      byId("index-model"),
      encoders.map((model) => model.name),
    );
    if (encoders.some((model) => model.name === "faces")) byId("index-model").value = "faces";
    indexing.framed = encoders.filter((model) => model.frame).map((model) => model.name);
    indexing.offerFaces();
    const roots = (can && service.about.roots) || [];
    fill(byId("roots"), roots);
    if (roots.length === 1 && !byId("index-source").value) byId("index-source").value = roots[0];
    if (can) indexing.resume();
  },

  offerFaces() {
    byId("index-faces-label").hidden = !indexing.framed.includes(byId("index-model").value);
  },

  // Index the folder of the form, and show how far that is.
  async index() {
    const values = {
      source: byId("index-source").value.trim(),
      collection: byId("index-collection").value.trim(),
      model: byId("index-model").value,
    };
    if (byId("index-faces").checked && !byId("index-faces-label").hidden) values.faces = true;
    await indexing.follow(() => service.send("index", values));
  },

  // Follow a job that an earlier page has started.
  async resume() {
    const { jobs } = await service.json("jobs").catch(() => ({ jobs: [] }));
    const running = jobs.find((job) => job.kind === "index" && !job.ended);
    if (running && !indexing.running) await indexing.follow(async () => running);
  },

  async follow(start) {
    if (indexing.running) return showError(new Error("A job is running: wait until it has ended, or cancel it."));
    const request = new AbortController();
    indexing.running = true;
    byId("job-cancel").onclick = () => request.abort();
    try {
      const job = await followJob(await start(), request.signal, indexing.showJob);
      if (job.problem) throw new Error(job.problem.detail || job.problem.title);
      showError(null);
      await load();
      await filtering.learn();
    } catch (error) {
      showError(error);
    } finally {
      indexing.running = false;
    }
  },

  showJob(job) {
    byId("job").hidden = false;
    if (job.ended && document.activeElement === byId("job-cancel")) byId("index-start").focus();
    byId("job-cancel").hidden = Boolean(job.ended);
    byId("job-state").textContent = `${job.collection || ""}: ${progress(job)}`;
    const bar = byId("job-progress");
    if (job.total) Object.assign(bar, { max: job.total, value: job.done });
    else if (job.ended) Object.assign(bar, { max: 1, value: 1 });
    else bar.removeAttribute("value");
    byId("job-failures").replaceChildren(
      ...job.failures.map(({ path, error }) =>
        make("li", { textContent: path && !error.startsWith(path) ? `${path}: ${error}` : error }),
      ),
    );
    byId("job-failed").hidden = !job.failures.length;
    byId("job-failed-count").textContent = `${job.failed} not read`;
  },
};

byId("index-model").onchange = indexing.offerFaces;
byId("welcome-index").onclick = () => {
  open("manage");
  saveView();
  byId("index-source").focus();
};
onSubmit(byId("index-form"), indexing.index);
