// Masks of single objects: COCO's compressed run lengths, decoded here; nothing else of an answer is compressed.

/**
 * Where each run of pixels ends, from COCO's compressed text; every second run, from the second on, is the object. Pixels are
 * counted down the columns, one column after the other. Five bits per character from "0" on, the sixth says that more
 * follow; from the fourth number on, what is written is the difference to the number two places before.
 */
export function runEnds(text) {
  const counts = [];
  const ends = [];
  let value = 0;
  let place = 1;
  for (const character of text) {
    const bits = character.charCodeAt(0) - 48;
    value += (bits & 31) * place; // no shifts: they would wrap at 32 bits
    place *= 32;
    if (bits & 32) continue;
    if (bits & 16) value -= place;
    counts.push(value + (counts.length > 2 ? counts.at(-2) : 0));
    ends.push(counts.at(-1) + (ends.at(-1) ?? 0));
    [value, place] = [0, 1];
  }
  return ends;
}

/** Whether an object {ends, height} lies at a pixel; false for one without a mask. */
export function covers({ ends, height }, x, y) {
  if (!ends) return false;
  const pixel = x * height + y;
  let [low, high] = [0, ends.length]; // the first run that ends behind the pixel
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] > pixel) high = middle;
    else low = middle + 1;
  }
  return low % 2 === 1 && low < ends.length;
}

/** A colour [r, g, b] for the n-th object, far from those of its neighbours in the list. */
export const objectColour = (n) => [5, 3, 1].map((offset) => {
  const place = (offset + n * 0.618034 * 6) % 6;
  return Math.round(255 * (1 - 0.75 * Math.max(0, Math.min(place, 4 - place, 1))));
});

/** A canvas of the image's size with the objects' pixels in their colours, the first object on top. */
export function paintObjects(objects, { width, height }) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer); // bytes are R, G, B, A on the little-endian machines there are
  for (const { ends, tone: [r, g, b] } of objects.filter((object) => object.ends).reverse()) {
    const colour = (0xff000000 | (b << 16) | (g << 8) | r) >>> 0;
    for (let run = 1; run < ends.length; run += 2) {
      let y = ends[run - 1] % height;
      let x = (ends[run - 1] - y) / height;
      for (let left = ends[run] - ends[run - 1]; left > 0; left--) {
        pixels[y * width + x] = colour;
        if (++y === height) [x, y] = [x + 1, 0];
      }
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
