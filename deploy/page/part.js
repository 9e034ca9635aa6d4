// The part of a picture that is used: one of the faces in it, a square, or what the collection takes of its images.
"use strict";

// Set up the choice in an element that has a .query with an <img>, and a .choices. changed(slowly) is called when
// another part is chosen; slowly: while the square moves. whole: what the part is called that needs no choice.
function chooser(place, changed, whole) {
  const box = place.querySelector(".query");
  const image = box.querySelector("img");
  const faces = make("div", {});
  const square = makeSquare(box, (crop) => take({ crop }, true));
  box.append(faces, square.element);
  faces.setAttribute("role", "group");
  faces.setAttribute("aria-label", "Faces found in the image");
  let picture = null;
  let target = { crop: "full", frame: null };

  // Use another part of the picture.
  function take(part, slowly = false) {
    picture.part = part;
    offer();
    changed(slowly);
  }

  // Show an image, or room for one.
  function frame(name, ratio) {
    image.alt = `The query: ${name}`;
    image.hidden = place.hidden = false;
    for (const each of box.querySelectorAll(".missing")) each.remove();
    box.style.setProperty("--ratio", ratio);
  }

  // Show the faces, and the buttons for what else can be chosen.
  function offer() {
    const { part } = picture;
    const found = picture.faces || [];
    const chosen = part.face || (takesFace() ? picture.main : 0);
    replace(
      faces,
      found.map((face, n) => makeFace(face, n + 1, found.length, n + 1 === chosen, () => take({ face: n + 1 }))),
    );
    const cut = !part.crop && !takesFace();
    const choices = [];
    if (!wantsFaces()) choices.push(makeButton(whole, () => take({ whole: true }), { pressed: cut, key: "whole" }));
    else if (!found.length) choices.push(makeButton("Main face", () => take({}), { pressed: !part.crop, key: "main" }));
    if (picture.url) {
      choices.push(makeButton("A square", () => square.start(), { pressed: Boolean(part.crop), key: "square" }));
    }
    replace(place.querySelector(".choices"), choices.length > 1 ? choices : []);
    square.show(part.crop && picture.url ? part.crop : null);
  }

  const wantsFaces = () => target.crop.startsWith("faces:");
  const takesFace = () => {
    const { part } = picture;
    return !part.crop && !part.whole && Boolean(part.face || part.faces || wantsFaces());
  };

  return {
    // Show a picture for a model that has {frame, crop}; find its faces once, if the model is made for faces.
    async show(next, model, signal) {
      picture = next;
      target = model;
      frame(picture.name, picture.url ? picture.width / picture.height : 1);
      box.hidden = !picture.url;
      if (picture.url) {
        image.src = picture.url;
        square.size(picture.width, picture.height, wantsFaces() ? "full" : target.crop);
      }
      offer();
      if (target.frame && !picture.faces && !service.facesMissing) await findFaces(picture, signal);
      if (picture !== next) return;
      if (!Object.keys(picture.part).length) picture.part = preferred(picture, target.crop);
      offer();
    },

    // Show the image of an item: all of it is used.
    showItem(name) {
      picture = null;
      frame(name, 1);
      image.removeAttribute("src");
      box.hidden = false;
      faces.replaceChildren();
      place.querySelector(".choices").replaceChildren();
      square.show(null);
    },

    // The parameters of a request; crop: also that of the collection, for requests that do not know it.
    values(named = false) {
      if (!picture) return {};
      const { crop, face, whole } = picture.part;
      if (crop) return { crop };
      if (face) return { face };
      if (!whole && picture.part.faces) return { faces: true };
      if (!named) return {};
      return wantsFaces() ? { faces: true } : { crop: target.crop };
    },
  };
}

// Find the faces of a picture; where the service cannot, there are none.
async function findFaces(picture, signal) {
  try {
    const { images } = await service.sendFiles("faces", {}, [picture.sent], { signal });
    [{ faces: picture.faces, main: picture.main }] = images;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    service.facesMissing = error.code === "extra-missing";
  }
}

// The part that is used first: all of a generated image, the main face of a photograph that is not framed already.
function preferred(picture, crop) {
  if (picture.crop) return { crop: picture.crop };
  if (crop.startsWith("faces:") || !picture.faces || !picture.faces.length) return {};
  const { x, y, wide } = boxOf(crop, picture.width, picture.height);
  const framed = picture.faces.some((face) => {
    const [left, top, width, height] = face.box;
    const across = Math.abs((left + width / 2) * picture.width - (x + wide / 2));
    const down = Math.abs((top + height / 2) * picture.height - (y + wide / 2));
    const size = Math.max(width * picture.width, height * picture.height) / wide; // 1.1 to 1.9 in LFW
    return Math.max(across, down) < 0.4 * wide && size > 0.8 && size < 2.1;
  });
  return framed ? {} : { faces: true };
}

// A face as a button on the picture.
function makeFace(face, number, count, pressed, onclick) {
  const [x, y, wide, high] = face.box;
  const [left, top] = [Math.max(0, x), Math.max(0, y)];
  const name = `Face ${number} of ${count}, from the left`;
  const button = makeButton("", onclick, { className: "face", name, pressed, key: `face-${number}` });
  Object.assign(button.style, boxStyle(left, top, Math.min(1, x + wide) - left, Math.min(1, y + high) - top));
  button.title = name;
  return button;
}

const boxStyle = (x, y, wide, high) => ({
  left: `${100 * x}%`,
  top: `${100 * y}%`,
  width: `${100 * wide}%`,
  height: `${100 * high}%`,
});
