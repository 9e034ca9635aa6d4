// The results of a search: one card each, and a line that says how good they are.
"use strict";

const results = {
  found: [],

  // Show all results so far; where they continue those that are shown, these stay.
  show(answer, found, complete) {
    results.found = found;
    byId("skeletons").hidden = true;
    byId("verdict").textContent = results.verdict(answer, found).join("; ");
    byId("share").hidden = Boolean(searching.picture);
    const shown = [...byId("results").children];
    const continues =
      shown.length && shown.every((card, n) => found[n] && card.dataset.key === found[n].id + results.basis());
    if (continues) byId("results").append(...found.slice(shown.length).map(results.card));
    else replace(byId("results"), found.map(results.card));
    const focused = document.activeElement === byId("more");
    byId("more").hidden = complete;
    if (focused && complete && continues && found.length > shown.length)
      byId("results").children[shown.length].querySelector("button").focus();
    byId("empty").hidden = found.length > 0;
    byId("empty").textContent = filtering.any() ? "No image passes the filters." : "No results.";
    filtering.offer(found);
  },

  // The same text for results of the same query.
  basis: () => searching.asked,

  clear() {
    results.found = [];
    for (const id of ["results", "filters"]) byId(id).replaceChildren();
    for (const id of ["verdict", "hidden-count"]) byId(id).textContent = "";
    for (const id of ["share", "more", "skeletons", "least-label", "filters-reset"]) byId(id).hidden = true;
  },

  // Show that a search runs; the results of the one before stay until it ends.
  busy(is) {
    byId("results").setAttribute("aria-busy", String(is));
    clearTimeout(results.timer);
    if (!is) return (byId("skeletons").hidden = true);
    results.timer = setTimeout(() => {
      if (byId("results").children.length) return;
      byId("empty").hidden = true;
      const empty = () =>
        make("li", { className: "card skeleton" }, make("span", { className: "whole" }), make("div", {}, "\u00a0"));
      byId("skeletons").replaceChildren(...Array.from({ length: Number(byId("k").value) }, empty));
      byId("skeletons").hidden = false;
    }, 300);
  },

  verdict(answer, found) {
    const verdict = [];
    if (answer.treatment) {
      const noise = `(estimated noise ${answer.treatment.sigma.toFixed(0)} of 255)`;
      verdict.push(`${answer.treatment.cleaned ? "query denoised" : "query not denoised, hardly any noise"} ${noise}`);
    }
    if (answer.warning) verdict.push(answer.warning);
    const kinds = found.map((result) => results.kind(result));
    if (kinds.includes("possible") && !kinds.some((kind) => kind === "match" || kind === "same file"))
      verdict.push("no good match");
    const each = filtering.takesEach() ? ", the best of each person" : filtering.fold ? ", duplicates folded" : "";
    verdict.push(`the ${found.length} most similar${each}, in ${answer.took_ms.toFixed(0)} ms`);
    return verdict;
  },

  // The service's verdict on a result; that it is the same file is also known here, from before it was scaled down.
  kind(result) {
    const { digest } = searching.picture || {};
    const [face, asked] = [result.payload.face, searching.answer && searching.answer.face];
    const same = digest && result.payload.sha256 === digest && (!face || !asked || face.number === asked.number);
    if (result.same_file || same) return "same file";
    return result.match === null ? "" : result.match ? "match" : "possible";
  },

  card(result) {
    const name = readable(result.person || result.path);
    const image = make("img", { alt: name, loading: "lazy" });
    service.showImage(image, itemPath(result.id, "thumbnail?side=256"));
    const shown = () => results.found.filter((each, n) => !byId("results").children[n].hidden);
    const whole = makeOpener(
      image,
      () => shown().map(results.entry),
      () => shown().indexOf(result),
    );
    whole.title = "Show the whole image";
    const more = makeButton("More like this", () => searching.like(result.id, name), {
      className: "quiet more",
      name: `More like this: ${name}`,
    });
    const label = make("div", {}, make("b", { textContent: name }));
    const kind = results.kind(result);
    if (kind)
      label.append(make("span", { className: kind === "possible" ? "kind" : "kind good", textContent: kind }), " ");
    const score = make("span", { className: "score", textContent: result.score.toFixed(3) });
    label.append(make("span", { className: "quietly" }, "score ", score));
    const card = make("li", { className: "card" }, whole, label, more);
    if (result.probability !== null) {
      label.append(make("span", { className: "quietly", textContent: ` probability ${percent(result.probability)}` }));
      card.dataset.probability = result.probability;
    }
    card.dataset.key = result.id + results.basis();
    return card;
  },

  // A result as the dialog shows it.
  entry(result) {
    const { person, path, payload } = result;
    const facts = [["Score", result.score.toFixed(3)]];
    if (result.probability !== null) facts.push(["Probability", percent(result.probability)]);
    const kind = results.kind(result);
    if (kind) facts.push(["Verdict", kind]);
    if (person) facts.push(["Person", readable(person)]);
    facts.push(["Path", path], ...results.metadata(payload));
    return stored(result.id, path, readable(person || path), facts, byId("collection").value, searching.like);
  },

  metadata(payload) {
    const facts = [];
    for (const [field, value] of Object.entries(payload)) {
      if (["path", "person", "sha256"].includes(field) || value === null || typeof value === "object") continue;
      if (field === "mtime_ns") facts.push(["Modified", new Date(value / 1e6).toLocaleString()]);
      else if (field === "size") facts.push(["Size", `${value.toLocaleString()} bytes`]);
      else if (field === "root") facts.push(["Folder", value]);
      else facts.push([readable(field), String(typeof value === "number" ? Number(value.toPrecision(4)) : value)]);
    }
    return facts;
  },
};
