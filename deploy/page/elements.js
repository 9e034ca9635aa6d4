// Small functions on elements that all views use.
"use strict";

const byId = (id) => document.getElementById(id);
const readable = (name) => name.replaceAll("_", " ");
const percent = (p) => (p < 0.01 ? "<1 %" : p > 0.99 ? ">99 %" : `${(100 * p).toFixed(0)} %`);
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const png = (text) => `data:image/png;base64,${text}`;
const pngBlob = (text) => new Blob([Uint8Array.from(atob(text), (c) => c.charCodeAt(0))], { type: "image/png" });

// Make an element: make("b", {title: "x"}, "text", child, ...). Text is never read as HTML.
function make(kind, values = {}, ...children) {
  const element = Object.assign(document.createElement(kind), values);
  element.append(...children);
  return element;
}

// The terms and values of a <dl>.
const terms = (facts) =>
  facts.flatMap(([term, value]) => [make("dt", { textContent: term }), make("dd", { textContent: value })]);

// Make a button; pressed is true or false for a button that can be pressed in.
function makeButton(text, onclick, { className = "quiet", name, pressed, key } = {}) {
  const button = make("button", { type: "button", className, textContent: text, onclick });
  if (name) button.setAttribute("aria-label", name);
  if (pressed !== undefined) button.setAttribute("aria-pressed", String(pressed));
  if (key) button.dataset.key = key;
  return button;
}

// Show what went wrong, until the next request succeeds or another view is opened; null: nothing. What was cancelled
// did not go wrong.
function showError(error) {
  if (error && error.name === "AbortError") return;
  byId("message").hidden = !error;
  byId("message").textContent = error ? error.message : "";
  byId("key-form").hidden = !(error && error.code === "unauthorized");
  if (error && error.code === "unauthorized") {
    byId("message").hidden = !service.key;
    byId("key").focus();
  }
}

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

// Replace the children of an element; the focus stays on the control with the same key, or at the same place.
function replace(element, children) {
  const controls = () => [...element.querySelectorAll("button, input, select, a[href]")];
  const at = controls().indexOf(document.activeElement);
  const { key } = document.activeElement.dataset;
  element.replaceChildren(...children);
  if (at < 0) return;
  const now = controls();
  const same = now.find((each) => key && each.dataset.key === key) || now[Math.min(at, now.length - 1)];
  (same || byId("main")).focus({ preventScroll: true });
}

// Call a function when a form is sent.
function onSubmit(form, work) {
  form.onsubmit = (event) => {
    event.preventDefault();
    work();
  };
}

// Call a function with each file that is chosen, also when the same file is chosen again.
function onFile(input, take) {
  input.onchange = () => {
    const [file] = input.files;
    if (file) take(file);
    input.value = "";
  };
}

// Copy text. Where the browser has no clipboard for the page (plain HTTP), show the text selected in a field.
async function copyText(text, button) {
  const before = button.textContent;
  let copied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const field = make("input", { className: "copy", readOnly: true, value: text });
    field.setAttribute("aria-label", "Text to copy: press Ctrl and C");
    field.onblur = () => field.remove();
    button.after(field);
    field.select();
    copied = document.execCommand("copy");
    if (copied) button.focus();
  }
  button.textContent = copied ? "Copied" : "Press Ctrl+C";
  setTimeout(() => (button.textContent = before), 1500);
}
