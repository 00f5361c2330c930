// Paints a picture and its layers. The same code paints the screen and the PNG that is saved.
//
// A view is {scale, x, y}: picture pixel (px, py) lies at canvas pixel ((px - x) * scale, (py - y) * scale).
// `unit` is the length of a CSS pixel in canvas pixels: lines and letters keep their size while one zooms.

const STRIP_PIXELS = 1 << 20; // masks are coloured in strips, so that a large PNG needs no second large buffer
const FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif";
const scratch = document.createElement("canvas");

export function paint(context, scene, view, unit) {
  const { width, height } = context.canvas;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.globalAlpha = 1;
  context.clearRect(0, 0, width, height);
  paintPicture(context, scene.picture, view, unit);
  for (const layer of scene.layers) {
    if (!layer.visible || layer.opacity === 0) continue;
    context.globalAlpha = layer.opacity;
    if (layer.type === "segmentation") paintMask(context, layer, view);
    if (layer.type === "detection") paintBoxes(context, layer, scene, view, unit);
    if (layer.type === "classification") paintClass(context, layer, scene.picture, view, unit);
  }
  context.globalAlpha = 1;
  if (scene.cross) paintCross(context, scene.cross, view, unit);
}

/** The boxes that are shown now: above the threshold and of a class that is switched on, best first. */
export function shownBoxes(layer, threshold) {
  return layer.boxes.filter((box) => box.score >= threshold && !layer.hidden.has(box.index));
}

export const cssColour = ([r, g, b]) => `rgb(${r}, ${g}, ${b})`;

const isLight = ([r, g, b]) => 0.299 * r + 0.587 * g + 0.114 * b > 140;

function paintPicture(context, { preview, detail, width, height }, view, unit) {
  const bitmap = view.scale <= (1.1 * preview.width) / width ? preview : detail;
  context.imageSmoothingEnabled = view.scale < 3 * unit; // single pixels become squares, as one wants to see them there
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, -view.x * view.scale, -view.y * view.scale, width * view.scale, height * view.scale);
}

/** Colours exactly the canvas pixels on which the picture lies; each takes the class at its centre, never a mixture. */
function paintMask(context, { labels, width, height, classes, hidden }, view) {
  const left = Math.max(0, Math.round(-view.x * view.scale));
  const right = Math.min(context.canvas.width, Math.round((width - view.x) * view.scale));
  const top = Math.max(0, Math.round(-view.y * view.scale));
  const bottom = Math.min(context.canvas.height, Math.round((height - view.y) * view.scale));
  if (left >= right || top >= bottom) return;
  const columns = Int32Array.from({ length: right - left }, (_, i) => at(left + i, view.scale, view.x, width));
  const palette = new Uint32Array(256); // 0 = transparent; bytes are R, G, B, A on the little-endian machines there are
  for (const { index, colour } of classes) {
    if (!hidden.has(index)) palette[index] = (0xff000000 | (colour[2] << 16) | (colour[1] << 8) | colour[0]) >>> 0;
  }
  const rows = Math.max(1, Math.min(bottom - top, Math.floor(STRIP_PIXELS / columns.length)));
  scratch.width = columns.length;
  scratch.height = rows;
  const strip = scratch.getContext("2d");
  const image = strip.createImageData(columns.length, rows);
  const pixels = new Uint32Array(image.data.buffer);
  for (let start = top; start < bottom; start += rows) {
    const count = Math.min(rows, bottom - start);
    for (let row = 0, to = 0; row < count; row++) {
      const from = at(start + row, view.scale, view.y, height) * width;
      for (let i = 0; i < columns.length; i++) pixels[to++] = palette[labels[from + columns[i]]];
    }
    strip.putImageData(image, 0, 0);
    context.drawImage(scratch, 0, 0, columns.length, count, left, start, columns.length, count);
  }
}

const at = (canvasPixel, scale, offset, size) => Math.min(size - 1, Math.max(0, Math.floor((canvasPixel + 0.5) / scale + offset)));

function paintBoxes(context, layer, scene, view, unit) {
  const { width, height } = context.canvas;
  const boxes = shownBoxes(layer, scene.threshold).filter((box) =>
    (box.x2 - view.x) * view.scale >= 0 && (box.x1 - view.x) * view.scale <= width &&
    (box.y2 - view.y) * view.scale >= 0 && (box.y1 - view.y) * view.scale <= height);
  for (const box of [...boxes].reverse()) paintFrame(context, layer, box, scene.highlight === box, view, unit);
  const tags = [];
  if (scene.highlight && boxes.includes(scene.highlight)) boxes.unshift(scene.highlight);
  for (const box of boxes) paintTag(context, box, layer.classes[box.index].colour, view, unit, tags);
}

function paintFrame(context, layer, box, strong, view, unit) {
  const colour = layer.classes[box.index].colour;
  const [x, y] = [(box.x1 - view.x) * view.scale, (box.y1 - view.y) * view.scale];
  const [w, h] = [(box.x2 - box.x1) * view.scale, (box.y2 - box.y1) * view.scale];
  if (strong) {
    context.fillStyle = isLight(colour) ? "rgba(0, 0, 0, .25)" : "rgba(255, 255, 255, .3)";
    context.fillRect(x, y, w, h);
  }
  // Dark blue on a night street would vanish: every box has a rim of the opposite brightness.
  context.lineJoin = "round";
  context.strokeStyle = isLight(colour) ? "rgba(0, 0, 0, .75)" : "rgba(255, 255, 255, .9)";
  context.lineWidth = (strong ? 6 : 4) * unit;
  context.strokeRect(x, y, w, h);
  context.strokeStyle = cssColour(colour);
  context.lineWidth = (strong ? 3.5 : 2) * unit;
  context.strokeRect(x, y, w, h);
}

/**
 * Class and score on a strip of colour that stands on a box, pushed into the canvas where it would stick out. Left out
 * where it would lie on the tag of a better box: the table and the mouse still name that box.
 */
function paintTag(context, { name, score, x1, y1 }, colour, view, unit, tags) {
  const [x, y] = [(x1 - view.x) * view.scale - unit, (y1 - view.y) * view.scale];
  context.font = `600 ${12 * unit}px ${FONT}`;
  const [padding, height] = [5 * unit, 18 * unit];
  const shown = shortened(context, name, ` ${score.toFixed(2)}`, context.canvas.width - 2 * padding);
  const width = context.measureText(shown).width + 2 * padding;
  const left = Math.max(0, Math.min(x, context.canvas.width - width));
  const top = y - height >= 0 ? y - height : Math.max(0, y);
  if (tags.some((tag) => left < tag.left + tag.width && tag.left < left + width && Math.abs(tag.top - top) < height)) return;
  tags.push({ left, top, width });
  context.fillStyle = cssColour(colour);
  context.fillRect(left, top, width, height);
  context.strokeStyle = isLight(colour) ? "rgba(0, 0, 0, .55)" : "rgba(255, 255, 255, .55)";
  context.lineWidth = unit;
  context.strokeRect(left, top, width, height);
  context.fillStyle = isLight(colour) ? "#111" : "#fff";
  context.textBaseline = "middle";
  context.fillText(shown, left + padding, top + height / 2 + 0.5 * unit);
}

/** The class of the whole picture, in its lower left corner (of the part that is seen): the road hides least there. */
function paintClass(context, layer, { width, height }, view, unit) {
  const [best] = layer.top;
  if (!best) return;
  const [gap, size, pad] = [10 * unit, 14 * unit, 9 * unit];
  const x = Math.max(0, -view.x * view.scale) + gap;
  const bottom = Math.min(context.canvas.height, (height - view.y) * view.scale) - gap;
  const middle = bottom - size;
  context.font = `600 ${size}px ${FONT}`;
  const right = Math.min(context.canvas.width, (width - view.x) * view.scale);
  const room = right - x - gap - 3 * pad - size;
  const text = shortened(context, best.name, ` ${best.score.toFixed(2)}`, room);
  context.fillStyle = "rgba(16, 19, 23, .82)";
  context.beginPath();
  context.roundRect(x, bottom - 2 * size, context.measureText(text).width + 3 * pad + size, 2 * size, size);
  context.fill();
  context.fillStyle = cssColour(layer.classes[best.index].colour);
  context.strokeStyle = "rgba(255, 255, 255, .8)";
  context.lineWidth = unit;
  context.beginPath();
  context.arc(x + pad + size / 2, middle, size / 2, 0, 2 * Math.PI);
  context.fill();
  context.stroke();
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(text, x + 2 * pad + size, middle + 0.5 * unit);
}

/** Returns name + ending, the name cut where both together are wider than the room. */
function shortened(context, name, ending, room) {
  let shown = name;
  while (shown.length > 4 && context.measureText(shown + ending).width > room) shown = `${shown.slice(0, -2).trimEnd()}…`;
  return shown + ending;
}

function paintCross(context, { x, y }, view, unit) {
  const [cx, cy] = [(x + 0.5 - view.x) * view.scale, (y + 0.5 - view.y) * view.scale];
  for (const [width, colour] of [[5, "rgba(0, 0, 0, .8)"], [2, "#fff"]]) {
    context.lineWidth = width * unit;
    context.strokeStyle = colour;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(cx + 4 * unit * dx, cy + 4 * unit * dy);
      context.lineTo(cx + 14 * unit * dx, cy + 14 * unit * dy);
    }
    context.stroke();
  }
}
