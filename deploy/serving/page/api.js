// Requests to the service, and its refusals in words. docs: /openapi.json

export class ServiceError extends Error {
  /** status: HTTP status; 0 = no answer at all; found out here, before anything was sent: -1 too large, -2 no picture. */
  constructor(status, code, message, { retryAfter = null, requestId = "" } = {}) {
    super(message);
    Object.assign(this, { status, code, retryAfter, requestId });
  }
}

async function ask(path, key, options) {
  const headers = key ? { "X-API-Key": key } : {};
  let response, text;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
    text = await response.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    // A server that refuses before it has read the upload closes the connection, and the browser may lose its answer
    const alive = options.method === "POST" && (await fetch("healthz", { cache: "no-store" }).catch(() => null))?.ok;
    throw new ServiceError(0, "unreachable", alive ? "It runs, but closed the connection during the upload: it may be busy." : "");
  }
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy's HTML page, say; handled below by its status.
  }
  if (response.ok && body) return { body, text };
  const { code = "unknown", message = "" } = body?.error ?? {};
  const wait = Number.parseInt(response.headers.get("Retry-After") ?? "", 10);
  throw new ServiceError(response.ok ? 502 : response.status, code, message, {
    retryAfter: Number.isFinite(wait) ? Math.max(0, wait) : null,
    requestId: body?.request_id ?? "",
  });
}

/** The model's name, tasks, classes with colours, limits and defaults. */
export async function getModel(key) {
  return (await ask("v1/model", key, {})).body;
}

/** One picture's answer as {body, text}; text is what the server sent, byte for byte, for the download. */
export async function predict(picture, { tasks, tta, threshold }, key, signal) {
  const form = new FormData();
  form.append("images", picture.blob, picture.name);
  form.append("tasks", tasks.join(","));
  form.append("tta", String(tta));
  form.append("threshold", String(threshold));
  // Runs of class numbers and not PNG: a canvas does not promise to give a PNG's values back unchanged (colour
  // management, and browsers that add noise against fingerprinting), runs are exact everywhere.
  form.append("mask", "rle");
  return ask("v1/predict", key, { method: "POST", body: form, signal });
}

export const FORM_BYTES = 4096; // what a form needs beside its picture; the server's limit counts all

/** Returns a refusal for a file that the server is known to refuse, or null; saves uploading it. */
export function refusal(picture, limits) {
  const pixels = picture.width * picture.height;
  if (limits?.max_bytes && picture.blob.size > limits.max_bytes - FORM_BYTES) {
    return new ServiceError(-1, "file_too_large", `The file has ${megabytes(picture.blob.size)}.`);
  }
  if (limits?.max_pixels && pixels > limits.max_pixels) {
    return new ServiceError(-1, "image_too_large", `The picture has ${megapixels(pixels)}.`);
  }
  if (limits?.max_side && Math.max(picture.width, picture.height) > limits.max_side) {
    return new ServiceError(-1, "image_too_large", `The picture is ${picture.width} × ${picture.height}; a side may have ${limits.max_side} pixels.`);
  }
  return null;
}

export function limitsText(limits) {
  if (!limits) return "";
  const parts = [];
  if (limits.formats?.length) parts.push(limits.formats.map((name) => name.replace("image/", "").toUpperCase()).join(", "));
  if (limits.max_bytes) parts.push(`up to ${megabytes(limits.max_bytes)}`);
  if (limits.max_pixels) parts.push(`up to ${megapixels(limits.max_pixels)}`);
  return parts.join(" · ");
}

const decimal = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const megabytes = (bytes) => `${decimal.format(bytes / 1e6)} MB`;
const megapixels = (pixels) => `${decimal.format(pixels / 1e6)} megapixels`;

/**
 * What happened and what to do about it: {title, help, action}. action: "retry" (the same again may work),
 * "smaller" or "choose" (it needs another picture), "key", or "settings".
 */
export function advice(error, limits) {
  const size = "Make the picture smaller, or choose another one.";
  const allowed = limitsText(limits);
  const words = {
    "-2": ["This browser cannot show that file", "It is damaged, cut off or no picture. Open it in a picture editor, save it as JPEG or PNG, or choose another one.", "choose"],
    "-1": ["This picture is too large for the server", `${size} It takes ${allowed}.`, "smaller"],
    0: ["The server does not answer", "It may be stopped or starting. Check that it runs and that you are connected, then try again; your picture is kept.", "retry"],
    400: ["The server does not accept these settings", "Change what you ask for, then run again.", "settings"],
    401: ["This server asks for an API key", "Enter the key that its operator gave you.", "key"],
    408: ["The upload took too long", "The connection may be slow. Try again, or send a smaller picture.", "retry"],
    413: ["This picture is too large for the server", allowed ? `${size} It takes ${allowed}.` : size, "smaller"],
    415: ["The server does not take this kind of file", allowed ? `It takes ${allowed}. Save the picture as JPEG or PNG.` : "Save the picture as JPEG or PNG.", "choose"],
    422: ["The server cannot read this picture", "The file seems damaged or cut off. Open it in a picture editor, save it again, or choose another one.", "choose"],
    429: ["The server is busy", "Many pictures are waiting. Yours is kept: try again in a moment.", "retry"],
    503: ["The server is not ready", "It is loading its model or shutting down. Your picture is kept: try again in a moment.", "retry"],
    504: ["That took too long", "Ask for fewer tasks, switch off looking several times, or choose a smaller picture.", "retry"],
  };
  const other = ["Something went wrong in the server", "Try again; if it stays so, tell its operator the request number below.", "retry"];
  const [title, help, action] = words[error.status] ?? other;
  return { title, help, action };
}
