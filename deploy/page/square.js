// A square on a picture: moved by dragging or with the arrow keys, resized at its corner or with plus and minus.
"use strict";

// Return {element, size, start, show}; chosen(crop) is called with X,Y,W,H in fractions of the picture.
function makeSquare(box, chosen) {
  const corner = make("span", { className: "corner" });
  const element = make("button", { type: "button", className: "square", hidden: true }, corner);
  let [width, height] = [1, 1]; // of the picture, in pixels
  let at = { x: 0, y: 0, side: 1 }; // in pixels of the picture

  const least = () => Math.max(0.03 * Math.max(width, height), 8);
  const within = (value, low, high) => Math.min(Math.max(value, low), Math.max(low, high));

  function set({ x, y, side }, told = true) {
    side = within(side, least(), Math.min(width, height));
    at = { side, x: within(x, 0, width - side), y: within(y, 0, height - side) };
    Object.assign(element.style, boxStyle(at.x / width, at.y / height, side / width, side / height));
    const part = (share) => `${Math.round(100 * share)} %`;
    const where = `${part(at.x / width)} from the left, ${part(at.y / height)} from the top, ${part(side / width)} wide`;
    element.setAttribute(
      "aria-label",
      `The square that is used: ${where}. Arrow keys move it, plus and minus resize it.`,
    );
    if (told) chosen(crop());
  }

  // X,Y,W,H, rounded so that it stays in the picture.
  function crop() {
    const round = (share) => Math.floor(share * 10000 + 1e-6) / 10000;
    return [at.x / width, at.y / height, at.side / width, at.side / height].map(round).join(",");
  }

  function drag(event) {
    const resizes = event.target === corner;
    const [from, before] = [{ x: event.clientX, y: event.clientY }, { ...at }];
    element.setPointerCapture(event.pointerId);
    element.onpointermove = (move) => {
      const scale = width / box.getBoundingClientRect().width;
      const [dx, dy] = [(move.clientX - from.x) * scale, (move.clientY - from.y) * scale];
      if (resizes) {
        const most = Math.min(width - before.x, height - before.y);
        set({ ...before, side: Math.min(before.side + Math.max(dx, dy), most) });
      } else set({ ...before, x: before.x + dx, y: before.y + dy });
    };
  }

  element.onpointerdown = drag;
  element.onpointerup = element.onpointercancel = () => (element.onpointermove = null);
  element.onkeydown = (event) => {
    const step = Math.min(width, height) / (event.shiftKey ? 200 : 40);
    const move = ARROWS[event.key];
    const grow = { "+": step, "=": step, "-": -step }[event.key];
    if (!move && !grow) return;
    event.preventDefault();
    if (move) set({ ...at, x: at.x + step * move[0], y: at.y + step * move[1] });
    else set({ x: at.x - grow / 2, y: at.y - grow / 2, side: at.side + grow });
  };

  return {
    element,
    // Fit to a picture of so many pixels, around what a crop takes of it.
    size(wide, high, crop) {
      [width, height] = [wide, high];
      const { x, y, wide: side } = boxOf(crop, wide, high);
      set({ x, y, side }, false);
    },
    start() {
      set(at);
      element.focus();
    },
    // Show the square where a crop has it; null: hide it.
    show(crop) {
      element.hidden = !crop;
      if (!crop) return;
      const { x, y, wide } = boxOf(crop, width, height);
      if (Math.abs(x - at.x) + Math.abs(y - at.y) + Math.abs(wide - at.side) > 0.001 * width)
        set({ x, y, side: wide }, false);
    },
  };
}
