// The page: takes a picture, asks the service, and keeps picture, panel and words in step.

import { getModel, limitsText, predict, refusal, ServiceError } from "./api.js";
import { paint, shownBoxes } from "./layers.js";
import { Notice } from "./notice.js";
import { buildFound, buildLayers, buildTasks, buildTimings, inOrder, make, titleOf, updateCounts } from "./panel.js";
import { CANVAS_PIXELS, closePicture, decodeRuns, openPicture, smallerCopy } from "./picture.js";
import { Probe } from "./probe.js";
import { Viewer } from "./viewer.js";

// Boxes from this score on are asked for, so that the slider can be lowered without asking again.
const LEAST_SCORE = 0.05;
const OPACITY = { segmentation: 0.55, detection: 1, classification: 1 };

const $ = (id) => document.getElementById(id);
const scene = { picture: null, layers: [], threshold: 0.5, lowest: LEAST_SCORE, highlight: null, cross: null };
const session = { key: "", model: null, answer: null, running: null, asked: "", opened: 0 };

const notice = new Notice($("notice"), $("key-form"), choose);
const probe = new Probe(scene, $("stage"), $("tooltip"), $("spoken"));
const viewer = new Viewer($("stage"), $("canvas"), {
  paint: (context, view, unit) => scene.picture && paint(context, scene, view, unit),
  look: (point, pointer) => probe.look(point, pointer),
  zoomed: (percent) => { $("zoom-value").textContent = `${percent} %`; },
});
probe.viewer = viewer;

// ---- the model -----------------------------------------------------------------------------------------------------

async function connect() {
  try {
    session.model = await getModel(session.key);
  } catch (error) {
    $("model").textContent = "Not connected";
    $("model").dataset.state = "away";
    fail(error, connect);
    return;
  }
  notice.clear();
  const { name, version, tasks, limits, defaults, tta } = session.model;
  $("model").replaceChildren(make("strong", {}, name), version ? ` ${version}` : "");
  $("model").dataset.state = "ready";
  $("limits").textContent = limitsText(limits);
  scene.threshold = defaults?.threshold ?? 0.5;
  scene.lowest = Math.min(LEAST_SCORE, scene.threshold);
  for (const { classes } of Object.values(tasks)) classes.sort((a, b) => a.index - b.index); // found by index from here on
  buildTasks($("tasks"), tasks, settingsChanged);
  $("tta").disabled = tta === false;
  $("tta-hint").textContent = tta === false ? "not with this model: it was exported for one size" : "looks several times: slower, often better";
  settingsChanged();
  if (scene.picture) await run();
}

// ---- a picture comes in ------------------------------------------------------------------------------------------------

async function take(blob, name) {
  const turn = ++session.opened; // a slow file must not replace a picture that was chosen after it
  session.running?.abort();
  session.running = null;
  busy(false);
  notice.clear();
  say(`Opening ${name} …`);
  let picture;
  try {
    picture = await openPicture(blob, name);
  } catch (error) {
    if (turn === session.opened) fail(error);
    return;
  }
  if (turn !== session.opened) return closePicture(picture);
  if (scene.picture) closePicture(scene.picture);
  Object.assign(scene, { picture, layers: [], highlight: null, cross: null });
  forgetAnswer();
  $("stage").dataset.state = "ready";
  $("prompt").hidden = true;
  $("canvas").hidden = $("toolbar").hidden = false;
  $("canvas").setAttribute("aria-label", `${name}, ${picture.width} by ${picture.height} pixels`);
  viewer.show(picture);
  settingsChanged();
  if (session.model) await run();
}

function forgetAnswer() {
  session.answer = null;
  session.asked = "";
  scene.layers = [];
  $("save-json").disabled = true;
  $("save-png").disabled = true;
  $("timings").hidden = true;
  $("layers-card").hidden = $("found-card").hidden = true;
  probe.hide();
}

async function takeExample(button) {
  const source = button.dataset.src;
  const name = source.split("/").pop();
  try {
    const response = await fetch(source);
    if (!response.ok) throw new ServiceError(response.status, "no_example", `${source}: ${response.status}`);
    await take(await response.blob(), name);
  } catch (error) {
    fail(error instanceof ServiceError ? error : new ServiceError(0, "unreachable", ""), () => takeExample(button));
  }
}

async function takeSmaller(limits) {
  await take(await smallerCopy(scene.picture, limits), `${stem()}_smaller.jpg`);
}

function takeFirst(files) {
  const list = [...files];
  const file = list.find((one) => one.type.startsWith("image/")) ?? list[0];
  if (file) take(file, file.name || "pasted picture.png");
}

// ---- asking ------------------------------------------------------------------------------------------------------------

function settings() {
  const tasks = [...document.querySelectorAll("#tasks input:checked")].map((box) => box.value);
  return { tasks, tta: $("tta").checked, threshold: scene.lowest };
}

function settingsChanged() {
  const now = settings();
  const stale = Boolean(session.asked) && session.asked !== JSON.stringify(now);
  $("run").disabled = !scene.picture || !session.model || !now.tasks.length;
  $("run").classList.toggle("primary", stale && now.tasks.length > 0);
  $("run-hint").textContent = now.tasks.length ? (stale ? "Changed since the last run." : "") : "Choose at least one task.";
}

async function run() {
  const asked = settings();
  const { picture } = scene;
  if (!picture || !asked.tasks.length) return;
  session.running?.abort();
  const control = new AbortController();
  session.running = control;
  notice.clear();
  busy(true);
  try {
    const refused = refusal(picture, session.model.limits);
    if (refused) throw refused;
    const started = performance.now();
    const answer = await predict(picture, asked, session.key, control.signal);
    const roundTrip = performance.now() - started;
    if (control.signal.aborted) return;
    show(answer, asked, roundTrip);
  } catch (error) {
    if (session.running !== control) return; // another run has taken over; it speaks for itself
    if (error.name === "AbortError") say("Cancelled. Run again when you like.");
    else fail(error, run);
  } finally {
    if (session.running === control) {
      session.running = null;
      busy(false);
    }
  }
}

let clock = 0;

function busy(on) {
  $("busy").hidden = !on;
  $("stage").setAttribute("aria-busy", String(on));
  clearInterval(clock);
  if (!on) return;
  say("Analysing …");
  const started = Date.now();
  $("busy-text").textContent = "Analysing …";
  clock = setInterval(() => {
    $("busy-text").textContent = `Analysing … ${Math.round((Date.now() - started) / 1000)} s`;
  }, 1000);
}

// ---- showing -----------------------------------------------------------------------------------------------------------

function show(answer, asked, roundTrip) {
  const [result] = answer.body.results;
  const { width, height } = scene.picture;
  if (result.width !== width || result.height !== height) {
    throw new ServiceError(502, "size_differs", `The server saw ${result.width} × ${result.height} pixels, this browser ${width} × ${height}.`);
  }
  const before = new Map(scene.layers.map((layer) => [layer.task, layer]));
  const { tasks } = session.model;
  scene.layers = inOrder(tasks).filter((name) => result[name]).map((name) => layerOf(name, tasks[name], result, before.get(name)));
  scene.highlight = scene.cross = null;
  session.answer = answer;
  session.asked = JSON.stringify(asked);
  $("save-json").disabled = $("save-png").disabled = false;
  $("layers-card").hidden = $("found-card").hidden = false;
  buildLayers($("layers"), scene, { changed: () => viewer.redraw(), filtered });
  buildTimings($("timings"), answer.body.timings_ms, roundTrip);
  filtered();
  settingsChanged();
  say(summary());
}

/** One layer from the answer; what was switched off or faded before stays so. */
function layerOf(name, { type, classes }, result, before) {
  const layer = {
    task: name, type, classes, title: titleOf(name, session.model.tasks),
    visible: before?.visible ?? true, opacity: before?.opacity ?? OPACITY[type] ?? 1, hidden: before?.hidden ?? new Set(),
  };
  const found = result[name];
  if (type === "segmentation") {
    const indices = new Map(classes.map((entry) => [entry.name, entry.index]));
    layer.shares = new Map(Object.entries(found.classes).map(([key, share]) => [indices.get(key), share]));
    Object.assign(layer, { labels: decodeRuns(found.mask), width: result.width, height: result.height });
  } else if (type === "detection") {
    layer.boxes = found.boxes.map(({ bbox: [x1, y1, x2, y2], score, class: title, class_index: index }) =>
      ({ x1, y1, x2, y2, score, index, name: title }));
    layer.boxes.sort((a, b) => b.score - a.score);
  } else {
    layer.top = found.top.map(({ class: title, score, class_index: index }) => ({ name: title, score, index }));
  }
  return layer;
}

function filtered() {
  updateCounts($("layers"), scene);
  buildFound($("found"), scene, {
    highlight: (layer, box) => probe.point(layer, box),
    open: (box) => {
      viewer.zoomTo(box);
      $("stage").scrollIntoView({ block: "nearest" });
    },
  });
  viewer.redraw();
}

const counted = (count, one, many) => `${count} ${count === 1 ? one : many}`;

function summary() {
  const parts = scene.layers.map((layer) => {
    if (layer.type === "segmentation") return counted(layer.shares.size, "class", "classes") + " in the mask";
    if (layer.type === "classification") return layer.top.length ? `class ${layer.top[0].name} (${layer.top[0].score.toFixed(2)})` : "no class";
    return counted(shownBoxes(layer, scene.threshold).length, "box", "boxes");
  });
  return `${scene.picture.name}, ${scene.picture.width} × ${scene.picture.height}: ${parts.join(", ")}.`;
}

function say(words) {
  $("status").textContent = words;
}

// ---- errors ----------------------------------------------------------------------------------------------------------------

function fail(error, again) {
  if (!(error instanceof ServiceError)) throw error; // a fault of this page: to the console, where tests look
  const limits = session.model?.limits;
  const smaller = scene.picture && limits ? () => takeSmaller(limits) : null;
  const title = notice.show(error, limits, { again, smaller });
  say(session.answer ? summary() : title); // an earlier answer is still shown; the notice speaks for itself
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  session.key = $("key").value;
  $("key").value = "";
  if (session.model) run();
  else connect();
});

// ---- saving ---------------------------------------------------------------------------------------------------------------

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

const stem = () => scene.picture.name.replace(/\.[^.]*$/, "");

$("save-json").addEventListener("click", () => save(new Blob([session.answer.text], { type: "application/json" }), `${stem()}.json`));

$("save-png").addEventListener("click", () => {
  const { width, height } = scene.picture;
  const scale = Math.min(1, Math.sqrt(CANVAS_PIXELS / (width * height)));
  const canvas = make("canvas", { width: Math.floor(width * scale), height: Math.floor(height * scale) });
  const still = { ...scene, highlight: null, cross: null };
  paint(canvas.getContext("2d"), still, { scale, x: 0, y: 0 }, Math.max(1, Math.max(canvas.width, canvas.height) / 1200));
  canvas.toBlob((blob) => {
    if (!blob) return say("This browser could not make the PNG; the picture is too large for its memory.");
    save(blob, `${stem()}_layers.png`);
    say(scale < 1 ? `Saved at ${canvas.width} × ${canvas.height} pixels, the most a browser can be trusted with.` : "Saved the picture with its layers.");
  }, "image/png");
});

// ---- controls ----------------------------------------------------------------------------------------------------------------

function choose() {
  $("file").click();
}

$("choose").addEventListener("click", choose);
$("another").addEventListener("click", choose);
$("file").addEventListener("change", () => {
  takeFirst($("file").files);
  $("file").value = ""; // so that the same file can be chosen twice
});
$("run").addEventListener("click", run);
$("cancel").addEventListener("click", () => session.running?.abort());
$("tta").addEventListener("change", settingsChanged);
$("zoom-in").addEventListener("click", () => viewer.zoomIn());
$("zoom-out").addEventListener("click", () => viewer.zoomOut());
$("zoom-fit").addEventListener("click", () => viewer.fit());
for (const button of document.querySelectorAll(".example")) button.addEventListener("click", () => takeExample(button));

document.addEventListener("paste", (event) => {
  if (event.clipboardData?.files.length) {
    event.preventDefault();
    takeFirst(event.clipboardData.files);
  }
});
for (const name of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) takeFirst(event.dataTransfer.files);
  });
}

connect();
