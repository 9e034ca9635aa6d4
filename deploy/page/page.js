// The page: tabs, the address of each view, and event handlers.
"use strict";

const TABS = ["search", "generate", "denoise", "reconstruct", "map", "manage"];

function open(name, focus = false) {
  if (opened() !== name) showError(null); // it was about another view
  for (const tab of TABS) {
    const chosen = tab === name;
    byId(tab).hidden = !chosen;
    byId(`tab-${tab}`).setAttribute("aria-selected", String(chosen));
    byId(`tab-${tab}`).tabIndex = chosen ? 0 : -1;
    if (chosen && focus) byId(`tab-${tab}`).focus();
  }
  if (name === "map") mapping.show();
}

const opened = () => TABS.find((tab) => !byId(tab).hidden);

// Put the view into the address, so that it can be shared and the back button works.
function saveView() {
  const tab = opened();
  const view = new URLSearchParams({ view: tab });
  if (tab === "search") {
    view.set("collection", byId("collection").value);
    view.set("k", byId("k").value);
    for (const kind of ["item", "text"]) if (searching[kind]) view.set(kind, searching[kind]);
    filtering.save(view);
    for (const [name, strength] of Object.entries(editing.strengths())) view.append("add", `${name}=${strength}`);
    if (editing.denoising()) view.set("denoise", "1");
  } else if (tab === "generate") {
    for (const name of ["model", "class", "n", "seed", "temperature"]) view.set(name, byId(`generate-${name}`).value);
  } else if (tab === "denoise") {
    for (const [name, value] of Object.entries(denoising.values())) view.set(name, value);
  } else if (tab === "reconstruct") {
    view.set("model", byId("reconstruct-model").value);
  } else if (tab === "map") {
    view.set("collection", byId("map-collection").value);
  }
  const picture = searching.picture && searching.picture.number;
  const state = history.state || {};
  if (location.hash !== `#${view}` || (state.picture || null) !== picture)
    history.pushState({ picture }, "", `#${view}`);
}

// Show the view of the address.
async function restoreView() {
  const view = new URLSearchParams(location.hash.slice(1));
  const tab = TABS.includes(view.get("view")) ? view.get("view") : "search";
  if (tab === "map") choose(byId("map-collection"), view.get("collection"));
  open(tab);
  if (tab === "search") await restoreSearch(view);
  else if (tab === "denoise") denoising.restoreView(view);
  else if (tab === "generate" && view.has("model")) {
    choose(byId("generate-model"), view.get("model"));
    generating.offerClasses();
    choose(byId("generate-class"), view.get("class"));
    for (const name of ["n", "seed", "temperature"])
      if (view.has(name)) byId(`generate-${name}`).value = view.get(name);
    await generating.generate();
  } else if (tab === "reconstruct") {
    choose(byId("reconstruct-model"), view.get("model"));
  }
}

async function restoreSearch(view) {
  choose(byId("collection"), view.get("collection"));
  choose(byId("k"), view.get("k"));
  await filtering.learn();
  editing.offerSliders();
  editing.set(Object.fromEntries(view.getAll("add").map((text) => text.split("="))));
  byId("denoise-query").checked = view.get("denoise") === "1";
  filtering.restore(view);
  const [item, text] = [view.get("item"), view.get("text")];
  const { picture: number } = history.state || {};
  const picture = item || text ? null : pictures.get(number);
  if (!item && !text && !picture) return searching.clear(Boolean(number));
  if (text) searching.say(text);
  else if (item && item !== searching.item) {
    searching.set({ item });
    searching.showQuery("");
  } else if (picture && picture !== searching.picture) return searching.use(picture, false);
  else editing.preview();
  if (searching.key() !== searching.asked) await searching.run();
  else filtering.offer(results.found);
}

// Learn what the service has, and offer it.
async function load(signal) {
  const options = { signal };
  const before = byId("collection").value;
  const [{ collections, damaged, held, unreachable }, { models }] = await Promise.all([
    service.json("collections", options),
    service.json("models", options),
    service.learn(options),
  ]);
  const names = collections.map((each) => each.name);
  const labels = collections.map((each) => `${each.name} (${each.count.toLocaleString()})`);
  for (const id of ["collection", "map-collection"]) fill(byId(id), names, labels);
  mapping.shown = "";
  for (const id of ["random", "file", "collection"]) byId(id).disabled = !collections.length;
  byId("search-view").hidden = !collections.length;
  searching.answers.clear(); // they may hold other images now
  filtering.collection = "";
  if (before && byId("collection").value !== before) searching.clear();
  editing.offer(collections, models);
  generating.offer(models);
  denoising.offer(models);
  managing.offer(collections, models, [...damaged, ...held, ...unreachable]);
}

async function start() {
  try {
    await waitFor("Loading the collections…", load);
    showError(null);
    await restoreView();
  } catch (error) {
    showError(error);
  } finally {
    document.body.dataset.ready = "true";
  }
}

for (const [n, tab] of TABS.entries()) {
  const button = byId(`tab-${tab}`);
  button.setAttribute("aria-controls", tab);
  byId(tab).setAttribute("aria-labelledby", button.id);
  button.onclick = () => {
    open(tab);
    saveView();
  };
  button.onkeydown = (event) => {
    const [step] = ARROWS[event.key] || [];
    if (!step) return;
    open(TABS[(n + step + TABS.length) % TABS.length], true);
    saveView();
  };
}

// An image that is dropped or pasted goes to the open view, or to the search.
function take(file) {
  if (!file) return;
  const takers = { denoise: denoising.take, reconstruct: generating.reconstruct };
  return (takers[opened()] || searching.take)(file);
}

document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("over");
};
document.ondragleave = (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
};
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take(event.dataTransfer.files[0]);
};
document.onpaste = (event) => {
  take([...event.clipboardData.files].find((each) => each.type.startsWith("image/")));
};
onFile(byId("file"), searching.take);
byId("random").onclick = searching.random;
byId("collection").onchange = async () => {
  const { picture } = searching;
  choose(byId("map-collection"), byId("collection").value);
  editing.offerSliders();
  filtering.clear();
  if (!picture) searching.clear();
  else if (!picture.crop) picture.part = {};
  saveView();
  if (picture) await searching.use(picture, false);
  else await filtering.learn();
};
byId("k").onchange = () => {
  saveView();
  searching.run();
};
byId("share").onclick = () => copyText(location.href, byId("share"));
onSubmit(byId("generate-form"), generating.generate);
byId("generate-model").onchange = generating.offerClasses;
byId("generate-temperature").oninput = (event) => {
  byId("temperature-value").value = Number(event.target.value).toFixed(1);
};
onFile(byId("reconstruct-file"), generating.reconstruct);
byId("reconstruct-model").onchange = () => {
  if (generating.picture) generating.picture.part = {};
  saveView();
  generating.reconstruct(null);
};
onSubmit(byId("key-form"), () => {
  service.key = byId("key").value;
  sessionStorage.setItem("key", service.key);
  start();
});
window.onpopstate = restoreView;

// Options are folded where they would push the results off the screen.
const narrow = window.matchMedia("(max-width: 40rem)");
const fold = () => (byId("options").open = !narrow.matches);
narrow.onchange = fold;
fold();
open("search");
const started = start();
