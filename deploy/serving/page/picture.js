// A picture as the browser shows it, and the mask that belongs to it.

import { FORM_BYTES, ServiceError } from "./api.js";

// Zoomed out, a small copy is drawn; zoomed in, the whole picture up to this many pixels (96 MB as RGBA).
const PREVIEW_SIDE = 2048;
const DETAIL_PIXELS = 24e6;
export const CANVAS_PIXELS = 16_777_216; // Safari on iOS refuses larger canvases

/** Decodes a file, turned as its EXIF data ask (the server does so too), off the main thread. */
export async function openPicture(blob, name) {
  let detail;
  try {
    detail = await createImageBitmap(blob);
  } catch {
    throw new ServiceError(-2, "not_a_picture", `${name} cannot be decoded.`);
  }
  const { width, height } = detail;
  const shrink = Math.min(1, PREVIEW_SIDE / Math.max(width, height));
  let preview = detail;
  if (shrink < 1) preview = await resized(blob, width, height, shrink);
  if (width * height > DETAIL_PIXELS) {
    detail.close();
    detail = await resized(blob, width, height, Math.sqrt(DETAIL_PIXELS / (width * height)));
  }
  return { blob, name, width, height, detail, preview };
}

/** Returns the picture as a JPEG that is within the server's limits. */
export async function smallerCopy({ detail, width, height }, { max_pixels: pixels = Infinity, max_bytes: bytes = Infinity, max_side: side = Infinity }) {
  const canvas = document.createElement("canvas");
  const room = Math.min(pixels, CANVAS_PIXELS);
  for (let scale = Math.min(1, Math.sqrt(room / (width * height)), side / Math.max(width, height)); ; scale *= 0.7) {
    canvas.width = Math.max(1, Math.floor(width * scale));
    canvas.height = Math.max(1, Math.floor(height * scale));
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(detail, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((done) => { canvas.toBlob(done, "image/jpeg", 0.92); });
    if (blob.size <= bytes - FORM_BYTES || canvas.width < 64) return blob;
  }
}

export function closePicture(picture) {
  picture.detail.close();
  picture.preview.close();
}

function resized(blob, width, height, factor) {
  return createImageBitmap(blob, {
    resizeWidth: Math.max(1, Math.round(width * factor)),
    resizeHeight: Math.max(1, Math.round(height * factor)),
    resizeQuality: "medium",
  });
}

/** Returns the class number of every pixel, row by row, from runs [class, length, class, length, ...]. */
export function decodeRuns({ size: [height, width], counts }) {
  const labels = new Uint8Array(height * width);
  let end = 0;
  for (let i = 0; i + 1 < counts.length; i += 2) {
    labels.fill(counts[i], end, end + counts[i + 1]);
    end += counts[i + 1];
  }
  if (end !== labels.length) {
    throw new ServiceError(502, "bad_mask", `The mask has ${end} pixels, its picture ${labels.length}.`);
  }
  return labels;
}
