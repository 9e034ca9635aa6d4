// The page as a whole: tabs, the address of each view, and what happens when something is done.
"use strict";

const TABS = ["search", "generate", "clean", "keep"];

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

// Put the view into the address, so that it can be shared and gone back to.
function remember() {
  const tab = opened();
  const view = new URLSearchParams({ view: tab });
  if (tab === "search") {
    view.set("collection", byId("collection").value);
    view.set("k", byId("k").value);
    if (searching.item) view.set("item", searching.item);
    if (searching.person !== null) view.set("person", searching.person);
    for (const [name, strength] of Object.entries(editing.strengths())) view.append("add", `${name}=${strength}`);
    if (editing.cleaning()) view.set("clean", "1");
  } else if (tab === "generate") {
    for (const name of ["model", "class", "n", "seed", "temperature"]) view.set(name, byId(`generate-${name}`).value);
  } else if (tab === "clean") {
    for (const [name, value] of Object.entries(cleaning.values())) view.set(name, value);
  } else {
    view.set("model", byId("keep-model").value);
  }
  if (location.hash !== `#${view}`) history.pushState(null, "", `#${view}`);
}

// Show what the address says.
async function recall() {
  const view = new URLSearchParams(location.hash.slice(1));
  const tab = TABS.includes(view.get("view")) ? view.get("view") : "search";
  open(tab);
  if (tab === "search") await recallSearch(view);
  else if (tab === "clean") cleaning.recall(view);
  else if (tab === "generate" && view.has("model")) {
    choose(byId("generate-model"), view.get("model"));
    drawing.offerClasses();
    choose(byId("generate-class"), view.get("class"));
    for (const name of ["n", "seed", "temperature"]) if (view.has(name)) byId(`generate-${name}`).value = view.get(name);
    await drawing.generate();
  } else if (tab === "keep") {
    choose(byId("keep-model"), view.get("model"));
  }
}

async function recallSearch(view) {
  choose(byId("collection"), view.get("collection"));
  choose(byId("k"), view.get("k"));
  editing.offerSliders();
  editing.set(Object.fromEntries(view.getAll("add").map((text) => text.split("="))));
  byId("clean-query").checked = view.get("clean") === "1";
  const item = view.get("item");
  if (!item && !searching.file) return searching.clear();
  searching.person = view.get("person");
  if (item !== searching.item && item) {
    Object.assign(searching, { item, file: null });
    searching.showQuery("");
  } else editing.draw();
  if (searching.question() !== searching.asked) await searching.run();
}

async function start() {
  try {
    const [{ collections }, { models }] = await Promise.all([service.json("collections"), service.json("models")]);
    say(null);
    fill(
      byId("collection"),
      collections.map((each) => each.name),
      collections.map((each) => `${each.name} (${each.count.toLocaleString()})`),
    );
    if (!collections.length) {
      byId("empty").textContent = "There is no collection yet: lookalike index photos/ --collection family makes one.";
    }
    for (const id of ["random", "file", "collection"]) byId(id).disabled = !collections.length;
    editing.offer(collections, models);
    drawing.offer(models);
    cleaning.offer(models);
    await recall();
  } catch (error) {
    say(error);
  } finally {
    document.body.dataset.ready = "true";
  }
}

for (const [n, tab] of TABS.entries()) {
  const button = byId(`tab-${tab}`);
  button.onclick = () => {
    open(tab);
    remember();
  };
  button.onkeydown = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    open(TABS[(n + step + TABS.length) % TABS.length], true);
    remember();
  };
}

// A picture that is dropped anywhere or pasted goes to the view that is open, or to the search.
function take(file) {
  if (!file) return;
  const takers = { clean: cleaning.take, keep: drawing.keep };
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
  remember();
  editing.draw();
  searching.run();
};
byId("k").onchange = () => {
  remember();
  searching.run();
};
byId("share").onclick = async () => {
  await navigator.clipboard.writeText(location.href).catch(() => {});
  byId("share").textContent = "Copied";
  setTimeout(() => (byId("share").textContent = "Copy a link to this view"), 1500);
};
byId("generate-form").onsubmit = (event) => {
  event.preventDefault();
  drawing.generate();
};
byId("generate-model").onchange = drawing.offerClasses;
byId("generate-temperature").oninput = (event) => {
  byId("temperature-said").value = Number(event.target.value).toFixed(1);
};
byId("keep-file").onchange = (event) => drawing.keep(event.target.files[0]);
byId("key-form").onsubmit = (event) => {
  event.preventDefault();
  service.key = byId("key").value;
  sessionStorage.setItem("key", service.key);
  start();
};
window.onpopstate = recall;
start();
