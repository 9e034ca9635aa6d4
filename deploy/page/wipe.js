// A wipe between two images, by a slider or by dragging on the image.
"use strict";

// Set up a box with two <img> and an .edge, and its <input type=range>; return a function that shows two images in it.
function wiper(box, range) {
  const [before, after] = box.querySelectorAll("img");
  const edge = box.querySelector(".edge");

  function wipe() {
    const at = box.classList.contains("alone") ? 0 : Number(range.value);
    after.style.clipPath = `inset(0 0 0 ${at}%)`;
    edge.style.left = `${at}%`;
    range.setAttribute("aria-valuetext", `before: ${at} %, after: ${100 - at} %`);
  }

  function drag(event) {
    const place = box.getBoundingClientRect();
    range.value = Math.round((100 * (event.clientX - place.left)) / place.width);
    wipe();
  }

  range.oninput = wipe;
  box.onpointerdown = (event) => {
    box.setPointerCapture(event.pointerId);
    drag(event);
  };
  box.onpointermove = (event) => {
    if (box.hasPointerCapture(event.pointerId)) drag(event);
  };
  after.onload = () => {
    const [wide, high] = [after.naturalWidth, after.naturalHeight];
    box.style.aspectRatio = `${wide} / ${high}`;
    box.parentElement.style.maxWidth = `min(max(26rem, ${wide}px), max(12rem, ${(70 * wide) / high}vh))`;
  };

  // Show two images by their URLs. Where the browser cannot show the first (TIFF), only the second is shown.
  return (one, two) => {
    box.classList.remove("alone");
    range.disabled = false;
    before.onerror = () => {
      box.classList.add("alone");
      range.disabled = true;
      wipe();
    };
    before.src = one;
    after.src = two;
    wipe();
  };
}
