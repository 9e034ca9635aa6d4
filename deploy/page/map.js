// The map of a collection: a dot for each image of a sample, similar ones near each other.
"use strict";

const mapping = {
  shown: "", // the collection on the map
  request: null, // the request in progress

  // Show the chosen collection: at once by principal components, then as the service does it best.
  async show() {
    const name = byId("map-collection").value;
    if (mapping.shown === name && name) return;
    const request = renew(mapping);
    const most = narrow.matches ? 500 : 2000;
    const ask = (query) => (signal) => service.json(`collections/${encodeURIComponent(name)}/map?limit=${most}${query}`, { signal });
    mapping.shown = name;
    mapping.points = [];
    byId("map-dots").replaceChildren();
    byId("map-note").textContent = name ? "" : "There is no collection yet.";
    if (!name) return;
    try {
      mapping.place(await waitFor("Making the map…", ask("&method=pca"), request), name);
      showError(null);
      const better = await ask("")(request.signal).catch(() => null);
      if (better && mapping.request === request) mapping.place(better, name);
    } catch (error) {
      if (mapping.request !== request) return;
      mapping.shown = "";
      if (error.name === "AbortError") byId("map-note").textContent = "Cancelled.";
      else showError(error);
    }
  },

  // Make the dots, or move those that are there.
  place({ points, method, total }, name) {
    const { children: dots } = byId("map-dots");
    if (points.some(({ id }, n) => !mapping.points[n] || mapping.points[n].id !== id))
      byId("map-dots").replaceChildren(...points.map((point, n) => mapping.dot(point, n, name)));
    points.forEach(({ x, y }, n) => Object.assign(dots[n].style, { left: `${100 * x}%`, top: `${100 * y}%` }));
    mapping.points = points;
    const some = points.length < total ? ` of ${total.toLocaleString()}` : "";
    const way = method === "umap" ? "by their neighbors (UMAP)" : "by two principal components (coarse)";
    byId("map-note").textContent = `${points.length.toLocaleString()}${some} images, placed ${way}`;
  },

  dot(point, n, collection) {
    const name = readable(point.name || point.path);
    const dot = makeButton("", () => mapping.open(point, name, collection), { className: "dot", name });
    dot.tabIndex = n ? -1 : 0;
    dot.onpointerenter = dot.onfocus = () => mapping.tell(dot, point, name, collection);
    dot.onpointerleave = dot.onblur = mapping.hush;
    dot.onkeydown = (event) => mapping.step(event, n);
    return dot;
  },

  // The arrow keys lead to the nearest dot in their direction.
  step(event, from) {
    const way = ARROWS[event.key];
    if (event.key === "Escape") mapping.hush();
    if (!way) return;
    event.preventDefault();
    const { x, y } = mapping.points[from];
    let [to, least] = [from, Infinity];
    mapping.points.forEach((point, n) => {
      const along = (point.x - x) * way[0] + (point.y - y) * way[1];
      const across = Math.abs((point.x - x) * way[1]) + Math.abs((point.y - y) * way[0]);
      const far = along + 2 * across;
      if (along > 0 && across <= 2 * along && far < least) [to, least] = [n, far];
    });
    const dots = byId("map-dots").children;
    dots[from].tabIndex = -1;
    dots[to].tabIndex = 0;
    dots[to].focus();
  },

  // Show an image beside its dot.
  tell(dot, { id, x, y }, name, collection) {
    mapping.hush();
    mapping.timer = setTimeout(() => {
      const image = make("img", { alt: "" });
      service.showImage(image, itemPath(id, "thumbnail?side=128", collection));
      const tip = byId("map-tip");
      tip.replaceChildren(image, name);
      Object.assign(tip.style, { left: dot.style.left, top: dot.style.top, translate: `${x > 0.5 ? -110 : 10}% ${-100 * y}%` });
      tip.hidden = false;
    }, 80);
  },

  hush() {
    clearTimeout(mapping.timer);
    byId("map-tip").hidden = true;
  },

  open({ id, path }, name, collection) {
    mapping.hush();
    const like = () => managing.search(collection, id);
    showing.open([stored(id, path, name, [["Path", path]], collection, like)], 0);
  },
};

byId("map-collection").onchange = () => {
  saveView();
  mapping.show();
};
