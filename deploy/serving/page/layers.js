// Answers -> layers, and the painting of an image with its layers, on the screen and for the PNG that is saved.
//
// A layer is one task's answer. What it holds says how it is drawn, whatever the type of the task: "mask", "boxes", "instances"
// (boxes with the pixels of each object), "top" (the best classes) or "caption"; an answer may hold several.
//
// A view is {scale, x, y}: image pixel (px, py) lies at canvas pixel ((px - x) * scale, (py - y) * scale).
// `unit` is the length of a CSS pixel in canvas pixels: lines and letters keep their size while one zooms.

import { ServiceError } from "./api.js";
import { objectColour, paintObjects, runEnds } from "./objects.js";

const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif";
const OBJECT_OPACITY = 0.5; // of an object's pixels where its frame is opaque
const PREVIEW_SIDE = 2048; // zoomed out, a copy of this size is drawn

/** Decodes a file, turned as its EXIF data ask (the server does so too), off the main thread. */
export async function openImage(blob, name) {
  try {
    const bitmap = await createImageBitmap(blob);
    const { width, height } = bitmap;
    const shrink = PREVIEW_SIDE / Math.max(width, height);
    const size = { resizeWidth: Math.max(1, Math.round(width * shrink)), resizeHeight: Math.max(1, Math.round(height * shrink)) };
    const preview = shrink < 1 ? await createImageBitmap(blob, { ...size, resizeQuality: "medium" }) : bitmap;
    return { blob, name, width, height, bitmap, preview };
  } catch {
    throw new ServiceError(-1, `${name} cannot be decoded.`);
  }
}

/** The layers of one image's result, the lowest first; what was switched off or faded in `before` stays so. */
export function readLayers(result, tasks, before) {
  const names = Object.keys(tasks).filter((name) => result[name]);
  const layers = names.map((name) => {
    const old = before.find((layer) => layer.task === name) ?? {};
    const { classes, title } = tasks[name];
    const { mask, boxes, instances, top, caption, score } = result[name];
    const layer = { task: name, title, classes, visible: old.visible ?? true, opacity: old.opacity ?? (mask ? 0.55 : 1), hidden: old.hidden ?? new Set() };
    if (mask) Object.assign(layer, readMask(mask, classes));
    if (boxes || instances) layer.boxes = (boxes ?? instances).map(readBox).sort((a, b) => b.score - a.score);
    if (instances) layer.objects = layer.boxes.map((box, n) => Object.assign(box, { tone: objectColour(n + 1) }));
    if (top) layer.top = top.map(({ class: name, score, class_index: index }) => ({ name, score, index }));
    if (caption) Object.assign(layer, { caption, score });
    return layer;
  });
  const rank = (layer) => (layer.labels ? 0 : layer.boxes ? 1 : 2);
  return layers.sort((a, b) => rank(a) - rank(b));
}

function readBox({ bbox: [x1, y1, x2, y2], score, class: name, class_index: index, segmentation: mask }) {
  return { x1, y1, x2, y2, score, name, index, ends: mask && runEnds(mask.counts), height: mask?.size[0] };
}

/** The class number of every pixel, row by row, from runs [class, length, class, length, ...], and each class's share. */
function readMask({ size: [height, width], counts }, classes) {
  const labels = new Uint8Array(height * width);
  const pixels = new Map();
  let end = 0;
  for (let i = 0; i < counts.length; i += 2) {
    labels.fill(counts[i], end, end + counts[i + 1]);
    end += counts[i + 1];
    pixels.set(counts[i], (pixels.get(counts[i]) ?? 0) + counts[i + 1]);
  }
  const shares = new Map([...pixels].filter(([index]) => classes[index]).map(([index, count]) => [index, count / labels.length]));
  return { labels, width, height, shares };
}

export function paint(context, scene, view, unit) {
  const { image } = scene;
  context.globalAlpha = 1;
  context.clearRect(0, 0, context.canvas.width, context.canvas.height);
  context.imageSmoothingEnabled = view.scale < 3 * unit; // single pixels become squares, as one wants to see them there
  context.imageSmoothingQuality = "high";
  const bitmap = view.scale <= (1.1 * image.preview.width) / image.width ? image.preview : image.bitmap;
  const spread = (what) => context.drawImage(what, -view.x * view.scale, -view.y * view.scale, image.width * view.scale, image.height * view.scale);
  spread(bitmap);
  context.imageSmoothingEnabled = false; // a mask's pixel is of one class, never a mixture
  for (const layer of scene.layers.filter((one) => one.visible)) {
    if (layer.objects) {
      context.globalAlpha = OBJECT_OPACITY * layer.opacity;
      spread(paintedObjects(layer, scene));
    }
    context.globalAlpha = layer.opacity;
    if (layer.labels) spread(tinted(layer));
    if (layer.boxes) paintBoxes(context, layer, scene, view, unit);
    const [best] = layer.top ?? [];
    if (best) paintWords(context, best.name, ` ${best.score.toFixed(2)}`, layer.classes[best.index].colour, image, view, unit);
  }
}

/** The boxes that are shown now: above the threshold and of a class that is switched on, best first. */
export const shownBoxes = (layer, threshold) => layer.boxes.filter((box) => box.score >= threshold && !layer.hidden.has(box.index));

export const cssColour = ([r, g, b]) => `rgb(${r}, ${g}, ${b})`;

const isLight = ([r, g, b]) => 0.299 * r + 0.587 * g + 0.114 * b > 140;

/** The mask in its classes' colours, made once; whoever hides a class takes layer.tint and layer.cover away. */
function tinted(layer) {
  if (layer.tint) return layer.tint;
  const palette = new Uint32Array(256); // 0 = transparent; bytes are R, G, B, A on the little-endian machines there are
  for (const { index, colour: [r, g, b] } of layer.classes) {
    if (!layer.hidden.has(index)) palette[index] = (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
  }
  layer.tint = Object.assign(document.createElement("canvas"), { width: layer.width, height: layer.height });
  const context = layer.tint.getContext("2d");
  const image = context.createImageData(layer.width, layer.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i++) pixels[i] = palette[layer.labels[i]];
  context.putImageData(image, 0, 0);
  return layer.tint;
}

/** The pixels of the objects that are shown; made anew when that changes. */
function paintedObjects(layer, { threshold, image }) {
  const shown = shownBoxes(layer, threshold);
  if (!layer.cover || layer.painted !== shown.length) { // sorted by score: as many are the same, unless a class was hidden
    Object.assign(layer, { cover: paintObjects(shown, image), painted: shown.length });
  }
  return layer.cover;
}

function paintBoxes(context, layer, scene, view, unit) {
  const { width, height } = context.canvas;
  const colourOf = (box) => layer.classes[box.index].colour;
  const boxes = shownBoxes(layer, scene.threshold).filter((box) =>
    (box.x2 - view.x) * view.scale >= 0 && (box.x1 - view.x) * view.scale <= width &&
    (box.y2 - view.y) * view.scale >= 0 && (box.y1 - view.y) * view.scale <= height);
  for (const box of [...boxes].reverse()) paintFrame(context, box, colourOf(box), scene.highlight === box, view, unit);
  const tags = []; // the best box and the highlighted one keep theirs
  if (boxes.includes(scene.highlight)) boxes.unshift(scene.highlight);
  for (const box of boxes) {
    const [left, bottom] = [(box.x1 - view.x) * view.scale - unit, (box.y1 - view.y) * view.scale];
    paintStrip(context, box.name, ` ${box.score.toFixed(2)}`, colourOf(box), left, bottom, unit, tags);
  }
}

function paintFrame(context, box, colour, strong, view, unit) {
  const at = [(box.x1 - view.x) * view.scale, (box.y1 - view.y) * view.scale, (box.x2 - box.x1) * view.scale, (box.y2 - box.y1) * view.scale];
  // Dark blue on a night street would vanish: every box has a rim of the opposite brightness.
  const rim = isLight(colour) ? "rgba(0, 0, 0, .75)" : "rgba(255, 255, 255, .9)";
  for (const [style, width] of [[rim, strong ? 6 : 4], [cssColour(colour), strong ? 3.5 : 2]]) {
    context.strokeStyle = style;
    context.lineWidth = width * unit;
    context.strokeRect(...at);
  }
}

/** Words on a strip of colour that ends at `bottom`, pushed into the canvas. Left out where it would lie on one of `tags`. */
function paintStrip(context, name, ending, colour, x, bottom, unit, tags) {
  context.font = `600 ${12 * unit}px ${FONT}`;
  const [padding, height] = [5 * unit, 18 * unit];
  const shown = shortened(context, name, ending, context.canvas.width - 2 * padding);
  const width = context.measureText(shown).width + 2 * padding;
  const left = Math.max(0, Math.min(x, context.canvas.width - width));
  const top = bottom - height >= 0 ? bottom - height : Math.max(0, bottom);
  if (tags.some((tag) => left < tag.left + tag.width && tag.left < left + width && Math.abs(tag.top - top) < height)) return;
  tags.push({ left, top, width });
  context.fillStyle = cssColour(colour);
  context.fillRect(left, top, width, height);
  context.fillStyle = isLight(colour) ? "#111" : "#fff";
  context.textBaseline = "middle";
  context.fillText(shown, left + padding, top + height / 2 + 0.5 * unit);
}

/** Words about the image as a whole, in its lower left corner (of the part that is seen): the road hides least there. */
function paintWords(context, words, ending, colour, { height }, view, unit) {
  const bottom = Math.min(context.canvas.height, (height - view.y) * view.scale) - 10 * unit;
  paintStrip(context, words, ending, colour, Math.max(0, -view.x * view.scale) + 10 * unit, bottom, unit, []);
}

/** The sentences of the layers that are visible. */
export const sentences = (layers) => layers.filter((layer) => layer.caption && layer.visible).map((layer) => layer.caption);

/** A copy of a canvas with sentences on white under it, in as many lines as they need. */
export function withSentences(canvas, texts, unit) {
  const [font, line, margin] = [`${16 * unit}px ${FONT}`, 24 * unit, 10 * unit];
  const measure = canvas.getContext("2d");
  measure.font = font;
  const lines = texts.flatMap((text) => text.split(" ").reduce((done, word) => {
    const longer = done.length ? `${done.at(-1)} ${word}` : word;
    const fits = done.length && measure.measureText(longer).width <= canvas.width - 2 * margin;
    return fits ? [...done.slice(0, -1), longer] : [...done, word];
  }, []));
  const height = canvas.height + Math.ceil(lines.length * line + margin);
  const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height });
  const context = copy.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, copy.width, copy.height);
  context.drawImage(canvas, 0, 0);
  Object.assign(context, { font, fillStyle: "#111", textBaseline: "middle" });
  lines.forEach((text, n) => context.fillText(text, margin, canvas.height + margin / 2 + (n + 0.5) * line));
  return copy;
}

/** Name + ending, the name cut where both together are wider than the room. */
function shortened(context, name, ending, room) {
  let shown = name;
  while (shown.length > 4 && context.measureText(shown + ending).width > room) shown = `${shown.slice(0, -2).trimEnd()}…`;
  return shown + ending;
}
