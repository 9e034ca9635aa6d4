// The dialog that shows one image of a view in full: with what is known of it, and what can be done with it.
"use strict";

const showing = {
  entries: [], // {name, blob(), facts, path, search(), saved}
  at: 0,
  url: "",

  // Show one of several images; the arrow keys lead to the others.
  open(entries, at) {
    showing.entries = entries;
    byId("large").showModal();
    showing.show(at);
  },

  async show(at) {
    const count = showing.entries.length;
    showing.at = (at + count) % count;
    const entry = showing.entries[showing.at];
    byId("large-name").textContent = entry.name;
    byId("large-place").textContent = count > 1 ? `${showing.at + 1} of ${count}` : "";
    for (const id of ["large-previous", "large-next"]) byId(id).hidden = count < 2;
    byId("large-facts").replaceChildren(...terms(entry.facts));
    byId("large-path").hidden = !entry.path;
    byId("large-search").hidden = !entry.search;
    byId("large-search").textContent = entry.path ? "More like this" : "Search with this image";
    const image = byId("large-image");
    image.alt = entry.name;
    image.hidden = true;
    for (const id of ["large-open", "large-save"]) byId(id).hidden = true;
    byId("large-missing").textContent = "";
    const blob = await waitFor("Loading the image…", entry.blob).catch((error) => {
      if (showing.entries[showing.at] === entry) byId("large-missing").textContent = `Not shown: ${error.message}`;
    });
    if (!blob || showing.entries[showing.at] !== entry) return;
    URL.revokeObjectURL(showing.url);
    showing.url = URL.createObjectURL(blob);
    for (const id of ["large-open", "large-save"]) Object.assign(byId(id), { href: showing.url, hidden: false });
    byId("large-save").download = entry.saved;
    image.src = showing.url;
    image.hidden = false;
  },
};

// An entry for an image that the service made, as PNG in Base64.
function made(text, name, facts = [], model = "") {
  const blob = pngBlob(text);
  const saved = `${name.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "")}.png`;
  return { name, facts, saved, blob: async () => blob, search: () => searching.takeMade(blob, saved, model) };
}

// An entry for an item of a collection.
const stored = (id, path, name, facts, collection, like) => ({
  name,
  facts,
  path,
  saved: `${path.replace(/^.*\/|\.\w+$/g, "")}.jpg`,
  blob: (signal) => service.blob(itemPath(id, "image", collection), { signal }),
  search: () => like(id, name),
});

// An <img> in a button that opens the dialog at its image.
function makeOpener(image, entries, at, label) {
  const button = make("button", { type: "button", className: "whole", title: "Show in full" }, image);
  if (label) button.setAttribute("aria-label", label);
  button.onclick = () =>
    showing.open(typeof entries === "function" ? entries() : entries, typeof at === "function" ? at() : at);
  return button;
}

byId("large").onkeydown = (event) => {
  const [step] = ARROWS[event.key] || [];
  if (!step || event.target.matches("input") || showing.entries.length < 2) return;
  event.preventDefault();
  showing.show(showing.at + step);
};
byId("large-previous").onclick = () => showing.show(showing.at - 1);
byId("large-next").onclick = () => showing.show(showing.at + 1);
byId("large-search").onclick = () => {
  byId("large").close();
  showing.entries[showing.at].search();
};
byId("large-path").onclick = () => copyText(showing.entries[showing.at].path, byId("large-path"));
byId("large").onclick = (event) => {
  if (event.target === byId("large")) byId("large").close(); // beside the dialog
};
