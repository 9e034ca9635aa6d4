// The page: tabs, the address of each view, and event handlers.
"use strict";

const TABS = ["search", "generate", "denoise", "reconstruct"];

function open(name, focus = false) {
  for (const tab of TABS) {
    const chosen = tab === name;
    byId(tab).hidden = !chosen;
    byId(`tab-${tab}`).setAttribute("aria-selected", String(chosen));
    byId(`tab-${tab}`).tabIndex = chosen ? 0 : -1;
    if (chosen && focus) byId(`tab-${tab}`).focus();
  }
}

const opened = () => TABS.find((tab) => !byId(tab).hidden);

// Put the view into the address, so that it can be shared and the back button works.
function saveView() {
  const tab = opened();
  const view = new URLSearchParams({ view: tab });
  if (tab === "search") {
    view.set("collection", byId("collection").value);
    view.set("k", byId("k").value);
    if (searching.item) view.set("item", searching.item);
    if (searching.person !== null) view.set("person", searching.person);
    for (const [name, strength] of Object.entries(editing.strengths())) view.append("add", `${name}=${strength}`);
    if (editing.denoising()) view.set("denoise", "1");
  } else if (tab === "generate") {
    for (const name of ["model", "class", "n", "seed", "temperature"]) view.set(name, byId(`generate-${name}`).value);
  } else if (tab === "denoise") {
    for (const [name, value] of Object.entries(denoising.values())) view.set(name, value);
  } else {
    view.set("model", byId("reconstruct-model").value);
  }
  if (location.hash !== `#${view}`) history.pushState(null, "", `#${view}`);
}

// Show the view of the address.
async function restoreView() {
  const view = new URLSearchParams(location.hash.slice(1));
  const tab = TABS.includes(view.get("view")) ? view.get("view") : "search";
  open(tab);
  if (tab === "search") await restoreSearch(view);
  else if (tab === "denoise") denoising.restoreView(view);
  else if (tab === "generate" && view.has("model")) {
    choose(byId("generate-model"), view.get("model"));
    generating.offerClasses();
    choose(byId("generate-class"), view.get("class"));
    for (const name of ["n", "seed", "temperature"]) if (view.has(name)) byId(`generate-${name}`).value = view.get(name);
    await generating.generate();
  } else if (tab === "reconstruct") {
    choose(byId("reconstruct-model"), view.get("model"));
  }
}

async function restoreSearch(view) {
  choose(byId("collection"), view.get("collection"));
  choose(byId("k"), view.get("k"));
  editing.offerSliders();
  editing.set(Object.fromEntries(view.getAll("add").map((text) => text.split("="))));
  byId("denoise-query").checked = view.get("denoise") === "1";
  const item = view.get("item");
  if (!item && !searching.file) return searching.clear();
  searching.person = view.get("person");
  if (item !== searching.item && item) {
    Object.assign(searching, { item, file: null });
    searching.showQuery("");
  } else editing.preview();
  if (searching.key() !== searching.asked) await searching.run();
}

async function start() {
  try {
    const [{ collections, damaged }, { models }] = await Promise.all([service.json("collections"), service.json("models")]);
    showError(damaged.length ? new Error(`Damaged: ${damaged.map((each) => each.name).join(", ")}`) : null);
    fill(
      byId("collection"),
      collections.map((each) => each.name),
      collections.map((each) => `${each.name} (${each.count.toLocaleString()})`),
    );
    if (!collections.length) {
      byId("empty").textContent = "There is no collection yet; create one with: lookalike index photos/ --collection family";
    }
    for (const id of ["random", "file", "collection"]) byId(id).disabled = !collections.length;
    editing.offer(collections, models);
    generating.offer(models);
    denoising.offer(models);
    await restoreView();
  } catch (error) {
    showError(error);
  } finally {
    document.body.dataset.ready = "true";
  }
}

for (const [n, tab] of TABS.entries()) {
  const button = byId(`tab-${tab}`);
  button.onclick = () => {
    open(tab);
    saveView();
  };
  button.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    open(TABS[(n + step + TABS.length) % TABS.length], true);
    saveView();
  };
}

// An image that is dropped or pasted goes to the open view, or to the search.
function take(file) {
  if (!file) return;
  const takers = { denoise: denoising.take, reconstruct: generating.reconstruct };
  if (takers[opened()]) return takers[opened()](file);
  open("search");
  searching.take(file);
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
byId("file").onchange = (event) => searching.take(event.target.files[0]);
byId("random").onclick = searching.random;
byId("collection").onchange = () => {
  editing.offerSliders();
  if (searching.item) searching.clear();
  saveView();
  editing.preview();
  searching.run();
};
byId("k").onchange = () => {
  saveView();
  searching.run();
};
byId("share").onclick = async () => {
  await navigator.clipboard.writeText(location.href).catch(() => {});
  byId("share").textContent = "Copied";
  setTimeout(() => (byId("share").textContent = "Copy a link to this view"), 1500);
};
byId("generate-form").onsubmit = (event) => {
  event.preventDefault();
  generating.generate();
};
byId("generate-model").onchange = generating.offerClasses;
byId("generate-temperature").oninput = (event) => {
  byId("temperature-value").value = Number(event.target.value).toFixed(1);
};
byId("reconstruct-file").onchange = (event) => generating.reconstruct(event.target.files[0]);
byId("key-form").onsubmit = (event) => {
  event.preventDefault();
  service.key = byId("key").value;
  sessionStorage.setItem("key", service.key);
  start();
};
window.onpopstate = restoreView;
start();
