// The collections view: what the store holds; other names and deleting, where the service lets the page.
"use strict";

const managing = {
  // closed: collections that cannot be opened, and why.
  offer(collections, models, closed) {
    const can = managing.can();
    byId("welcome").hidden = Boolean(collections.length || closed.length);
    byId("welcome-index").hidden = !can;
    byId("welcome-command").hidden = can;
    byId("no-collections").hidden = collections.length + closed.length > 0;
    indexing.offer(models, can);
    byId("closed").hidden = !closed.length;
    byId("closed").textContent = closed.map((each) => `Cannot be opened: ${each.reason}`).join(". ");
    replace(byId("collection-list"), [...collections.map(managing.row), ...closed.map(managing.closed)]);
  },

  can: () => Boolean(service.about && service.about.can_write),

  closed: ({ name, reason }) =>
    make(
      "li",
      { className: "collection" },
      make("h3", { textContent: name }),
      make("p", { className: "hint bad", textContent: reason }),
    ),

  amount({ count, crop }) {
    const kind = crop.startsWith("faces:") ? "face" : "image";
    return `${count.toLocaleString()} ${kind}${count === 1 ? "" : "s"}`;
  },

  row(collection) {
    const { name, model, aliases } = collection;
    const details = make("div", { className: "details", hidden: true });
    const look = makeButton(
      "Look at it",
      async () => {
        details.hidden = !details.hidden;
        look.setAttribute("aria-expanded", String(!details.hidden));
        if (!details.hidden && !details.children.length) await managing.look(collection, details).catch(showError);
      },
      { name: `Look at ${name}`, key: `look ${name}` },
    );
    look.setAttribute("aria-expanded", "false");
    const search = makeButton("Search", () => managing.search(name), { name: `Search ${name}`, key: `search ${name}` });
    const actions = make("div", { className: "row" }, look, search);
    if (managing.can()) {
      const about = { name: `Delete ${name}`, className: "quiet bad", key: `delete ${name}` };
      actions.append(makeButton("Delete…", () => managing.remove(collection), about));
    }
    const words = [managing.amount(collection), `model ${model || "not loaded"}`];
    return make(
      "li",
      { className: "collection" },
      make("h3", { textContent: name }),
      make("p", { className: "hint", textContent: words.join(" · ") }),
      managing.aliases(name, aliases),
      actions,
      details,
    );
  },

  // The aliases of a collection, each with a button that takes it away; and a field for another.
  aliases(name, aliases) {
    const line = make("div", { className: "row aliases" });
    for (const alias of aliases) {
      const path = `aliases/${encodeURIComponent(alias)}`;
      const remove = makeButton("×", () => managing.change(() => service.ask(path, { method: "DELETE" })), {
        name: `Remove the alias ${alias}`,
        key: `alias ${alias}`,
      });
      line.append(
        make(
          "span",
          { className: "chips" },
          make("span", { className: "chip", textContent: `also ${alias}` }),
          ...(managing.can() ? [remove] : []),
        ),
      );
    }
    if (!managing.can()) return line;
    const field = make("input", { required: true, maxLength: 64, pattern: "[A-Za-z0-9][A-Za-z0-9._\\-]*", size: 12 });
    const form = make(
      "form",
      { className: "row" },
      make("label", {}, "Another name ", field),
      make("button", { className: "quiet", textContent: "Add" }),
    );
    form.lastChild.setAttribute("aria-label", `Add a name for ${name}`);
    onSubmit(form, () => {
      const path = `aliases/${encodeURIComponent(field.value.trim())}`;
      managing.change(() => service.send(path, { collection: name }, { method: "PUT" }));
    });
    line.append(form);
    return line;
  },

  // Show some images of a collection, and its people.
  async look({ name, ...row }, place) {
    const info = await service.json(`collections/${encodeURIComponent(name)}`);
    const about = [
      ["Model", `${row.model || "not loaded"} (${row.model_id.slice(0, 12)})`],
      ["Crop", row.crop],
      ["Dimensions", row.dimension],
      ["Folders", row.roots.join(", ")],
    ];
    const images = info.sample.map((id) => {
      const image = make("img", { alt: "", loading: "lazy" });
      service.showImage(image, itemPath(id, "thumbnail?side=128", name));
      const button = make("button", { type: "button", className: "whole", title: "More like this" }, image);
      button.setAttribute("aria-label", "More like this image of the collection");
      button.onclick = () => managing.search(name, id);
      return button;
    });
    const chips = info.people.map(({ value, count }) => {
      const person = String(value);
      return makeButton(`${readable(person)} (${count})`, () => managing.searchPerson(name, person), {
        className: "chip",
        name: `Random image of ${readable(person)}`,
      });
    });
    place.replaceChildren(
      make("div", { className: "sample" }, ...images),
      make("dl", {}, ...terms(about)),
      make("div", { className: "row", hidden: !chips.length }, ...chips),
    );
  },

  // Open the search of a collection: empty, or with an item.
  async search(name, item = null) {
    byId("collection").value = name;
    editing.offerSliders();
    filtering.clear();
    await filtering.learn();
    if (item) return searching.like(item, "");
    open("search");
    searching.clear();
    saveView();
  },

  async searchPerson(name, person) {
    await managing.search(name);
    filtering.only = person;
    await searching.random();
  },

  // Do something to the store, and show what it holds then.
  async change(work) {
    try {
      await waitFor("Changing the store…", work);
      showError(null);
      await load();
      await filtering.learn();
      return true;
    } catch (error) {
      showError(error);
      return false;
    }
  },

  remove(collection) {
    const { name } = collection;
    byId("delete-question").textContent =
      `Delete the collection ${name} with ${managing.amount(collection)}? The image files stay where they are.`;
    const dialog = byId("delete");
    dialog.onclose = () => {
      if (dialog.returnValue === "delete")
        managing.change(() => service.ask(`collections/${encodeURIComponent(name)}`, { method: "DELETE" }));
    };
    dialog.returnValue = "";
    dialog.showModal();
  },
};
