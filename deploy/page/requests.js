// Requests to the service, with the API key; and small functions that all views use.
"use strict";

const service = {
  key: sessionStorage.getItem("key") || "",

  headers(more) {
    return service.key ? { ...more, Authorization: `Bearer ${service.key}` } : { ...more };
  },

  // Return the response, or throw an Error with a readable message and the code of the problem.
  async ask(path, options = {}) {
    let response;
    try {
      response = await fetch(`/api/v1/${path}`, { ...options, headers: service.headers(options.headers) });
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
    return service.json(path, { ...options, method: "POST", headers: json, body: JSON.stringify(values) });
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

  // Show an image of the service in an <img>, which cannot send the key itself.
  async showImage(image, path) {
    try {
      const url = URL.createObjectURL(await (await service.ask(path)).blob());
      image.onload = () => URL.revokeObjectURL(url);
      image.src = url;
    } catch (error) {
      image.alt = `${image.alt} (not shown: ${error.message})`;
    }
  },
};

const byId = (id) => document.getElementById(id);

// Make an element: make("b", {title: "x"}, "text", child, ...). Text is never read as HTML.
function make(kind, values = {}, ...children) {
  const element = Object.assign(document.createElement(kind), values);
  element.append(...children);
  return element;
}

function showError(error) {
  byId("message").hidden = !error;
  byId("message").textContent = error ? error.message : "";
  byId("key-form").hidden = !(error && error.code === "unauthorized");
  if (error && error.code === "unauthorized") {
    byId("message").hidden = !service.key;
    byId("key").focus();
  }
}

const png = (text) => `data:image/png;base64,${text}`;
const pngBlob = (text) => new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], { type: "image/png" });

// Return a function that runs once it has not been called for so many milliseconds.
function debounce(wait, work) {
  let timer;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(work, wait);
  };
}

function fill(select, names, labels = names) {
  const before = select.value;
  select.replaceChildren(...names.map((name, n) => make("option", { value: name, textContent: labels[n] })));
  if (names.includes(before)) select.value = before;
}

function choose(select, value) {
  if (value !== null && [...select.options].some((option) => option.value === value)) select.value = value;
}
