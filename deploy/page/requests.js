// Requests to the service, with the API key.
"use strict";

const service = {
  key: sessionStorage.getItem("key") || "",
  about: null, // what the service offers, once that is known

  headers(more) {
    return service.key ? { ...more, Authorization: `Bearer ${service.key}` } : { ...more };
  },

  // Return the response, or throw an Error with a readable message and the code of the problem.
  async ask(path, options = {}) {
    let response;
    try {
      response = await fetch(`api/v1/${path}`, { ...options, headers: service.headers(options.headers) });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw Object.assign(new Error("The service does not answer. Is it running?"), { code: "unreachable" });
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    const message = problem.detail || problem.title || `The service failed (${response.status}).`;
    throw Object.assign(new Error(message), { code: problem.code || "internal" });
  },

  async json(path, options) {
    return (await service.ask(path, options)).json();
  },

  send(path, values, options = {}) {
    const json = { "Content-Type": "application/json" };
    return service.json(path, { method: "POST", ...options, headers: json, body: JSON.stringify(values) });
  },

  // Send files and values as a form.
  sendFiles(path, values, files, options = {}) {
    const form = new FormData();
    for (const [name, value] of Object.entries(values)) {
      for (const each of [value].flat()) form.append(name, each);
    }
    for (const file of files) form.append("image", file, file.name || "pasted");
    return service.json(path, { ...options, method: "POST", body: form });
  },

  // Ask what the service offers.
  async learn(options) {
    service.about = await service.json("service", options);
  },

  async blob(path, options) {
    return (await service.ask(path, options)).blob();
  },

  // Show an image of the service in an <img>, which cannot send the key itself; or a line that says why not.
  async showImage(image, path) {
    try {
      const url = URL.createObjectURL(await service.blob(path));
      image.onload = () => URL.revokeObjectURL(url);
      image.src = url;
    } catch (error) {
      image.hidden = true;
      image.after(make("span", { className: "missing", textContent: `Not shown: ${error.message}` }));
    }
  },
};

// Start a request of a view, in place of the one in progress.
function renew(view) {
  if (view.request) view.request.abort();
  return (view.request = new AbortController());
}

const itemPath = (id, part, collection = byId("collection").value) =>
  `items/${id}/${part}${part.includes("?") ? "&" : "?"}collection=${encodeURIComponent(collection)}`;
