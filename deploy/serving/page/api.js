// Requests to the service, and its refusals in words. docs: /openapi.json

export class ServiceError extends Error {
  /** status: HTTP status; 0 = no answer at all; -1 = found out here: no image. */
  constructor(status, message, { retryAfter = 0, requestId = "" } = {}) {
    super(message);
    Object.assign(this, { status, retryAfter, requestId });
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
    throw new ServiceError(0, alive ? "It runs, but closed the connection during the upload: it is busy, or the file too large." : "");
  }
  let body = null;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy's HTML page, say; handled below by its status.
  }
  if (response.ok && body) return { body, text };
  const retryAfter = Number.parseInt(response.headers.get("Retry-After"), 10) || 0;
  throw new ServiceError(response.ok ? 502 : response.status, body?.error?.message ?? "", { retryAfter, requestId: body?.request_id });
}

/** The model's name, tasks, classes with colours, limits and defaults. */
export const getModel = async (key) => (await ask("v1/model", key, {})).body;

/** One image's answer as {body, text}; text is what the server sent, byte for byte, for the download. */
export async function predict(image, { tasks, tta, threshold }, key, signal) {
  const form = new FormData();
  form.append("images", image.blob, image.name);
  form.append("tasks", tasks.join(","));
  form.append("tta", String(tta));
  form.append("threshold", String(threshold));
  // Runs of class numbers and not PNG: a canvas does not promise to give a PNG's values back unchanged (colour
  // management, and browsers that add noise against fingerprinting), runs are exact everywhere.
  form.append("mask", "rle");
  return ask("v1/predict", key, { method: "POST", body: form, signal });
}

export function limitsText({ formats, max_bytes: bytes, max_pixels: pixels }) {
  const megas = (count) => Math.round(count / 1e5) / 10;
  return `${formats.join(", ").toUpperCase()} · up to ${megas(bytes)} MB · up to ${megas(pixels)} megapixels`;
}

/** What happened and what to do about it: [title, help, action]; action: "retry", "choose", "key" or nothing. */
export function advice(status, limits) {
  const words = {
    "-1": ["This browser cannot show that file", "It is damaged, cut off or no image. Save it as JPEG or PNG, or choose another one.", "choose"],
    0: ["The server does not answer", "It may be stopped or starting. Try again; your image is kept.", "retry"],
    400: ["The server does not accept these settings", "Change what you ask for, then run again.", ""],
    401: ["This server asks for an API key", "Enter the key that its operator gave you.", "key"],
    408: ["The upload took too long", "The connection may be slow. Try again, or send a smaller image.", "retry"],
    413: ["This image is too large for the server", `Make it smaller, or choose another one. It takes ${limits}.`, "choose"],
    415: ["The server does not take this kind of file", `It takes ${limits}. Save the image as JPEG or PNG.`, "choose"],
    422: ["The server cannot read this image", "The file seems damaged or cut off: save it again, or choose another one.", "choose"],
    429: ["The server is busy", "Many images are waiting. Yours is kept: try again in a moment.", "retry"],
    503: ["The server is not ready", "It is loading its model or shutting down. Try again in a moment.", "retry"],
    504: ["That took too long", "Ask for fewer tasks, switch off looking several times, or choose a smaller image.", "retry"],
  };
  return words[status] ?? ["Something went wrong in the server", "Try again; if it stays so, tell its operator the request number below.", "retry"];
}
