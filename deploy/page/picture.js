// Pictures of one's own: each is read, turned upright and scaled down once, before it is sent.
"use strict";

const LONG_SIDE = 1280; // in pixels; what is enough to find faces
const KEPT = 30;
const pictures = new Map(); // the pictures of this tab by number, for the back button

// Return a picture of a file; crop: the part of it that is used, unless another is chosen.
async function readPicture(file, { crop = null, name = file.name || "pasted" } = {}) {
  const picture = { file, name, crop, sent: file, url: null, width: 0, height: 0, digest: "", faces: null, part: {} };
  picture.number = 1 + Math.max(0, ...pictures.keys());
  const [bitmap, digest] = await Promise.all([decode(file), digestOf(file)]);
  picture.digest = digest;
  if (bitmap) {
    const scale = Math.min(1, LONG_SIDE / Math.max(bitmap.width, bitmap.height));
    [picture.width, picture.height] = [bitmap.width, bitmap.height];
    if (scale < 1) picture.sent = await scaled(bitmap, scale, name);
    picture.url = URL.createObjectURL(picture.sent);
    bitmap.close();
  }
  keep(picture);
  return picture;
}

// The file to send: the original where it is denoised, as a smaller copy has other noise.
const toSend = (picture, values) => (values.denoise ? picture.file : picture.sent);

// Return the pixels of a file, upright; null where the browser cannot read it, as the service may.
const decode = (file) => createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);

// Return a smaller copy of an image, over white as the service has it.
async function scaled(bitmap, scale, name) {
  const size = { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale) };
  const canvas = make("canvas", size);
  const paint = canvas.getContext("2d");
  paint.fillStyle = "#fff";
  paint.fillRect(0, 0, size.width, size.height);
  paint.imageSmoothingQuality = "high";
  paint.drawImage(bitmap, 0, 0, size.width, size.height);
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.95));
  return new File([blob], name, { type: blob.type });
}

// Return the SHA-256 of a file in hexadecimal, to tell its copies; empty where the browser has none (plain HTTP).
async function digestOf(file) {
  if (!window.crypto.subtle) return "";
  const bytes = new Uint8Array(await crypto.subtle.digest("SHA-256", await file.arrayBuffer()));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function keep(picture) {
  pictures.set(picture.number, picture);
  if (pictures.size <= KEPT) return;
  const [oldest] = pictures.values();
  pictures.delete(oldest.number);
  URL.revokeObjectURL(oldest.url);
}

// Draw the part of an image that a square crop takes; side: in pixels. Return its URL.
async function drawPart(blob, crop, side) {
  const bitmap = await decode(blob);
  if (!bitmap) return "";
  const { x, y, wide, high } = boxOf(crop, bitmap.width, bitmap.height);
  const canvas = make("canvas", { width: side, height: side });
  const paint = canvas.getContext("2d");
  paint.imageSmoothingQuality = "high";
  paint.drawImage(bitmap, x, y, wide, high, 0, 0, side, side);
  bitmap.close();
  return canvas.toDataURL("image/png");
}

// Return the box in pixels that a crop takes: full, center:F, or X,Y,W,H in fractions.
function boxOf(crop, width, height) {
  const parts = crop.split(",").map(Number);
  if (parts.length === 4) {
    const [x, y, wide, high] = parts;
    return { x: x * width, y: y * height, wide: wide * width, high: high * height };
  }
  const side = Math.min(width, height) * (crop.startsWith("center:") ? Number(crop.slice(7)) : 1);
  return { x: (width - side) / 2, y: (height - side) / 2, wide: side, high: side };
}
