// The page: takes an image, asks the service, and keeps image, panel and words in step.

import { getModel, limitsText, predict, ServiceError } from "./api.js";
import { openImage, paint, readLayers, sentences, shownBoxes, withSentences } from "./layers.js";
import { buildFound, buildLayers, buildTasks, giveTitles, make, showError, updateCounts } from "./panel.js";
import { Probe } from "./probe.js";
import { Viewer, ZOOM } from "./viewer.js";

const LEAST_SCORE = 0.05; // boxes from this score on are asked for, so that the slider can be lowered without asking again
const CANVAS_PIXELS = 16_777_216; // Safari on iOS refuses larger canvases

const $ = (id) => document.getElementById(id);
const scene = { image: null, layers: [], threshold: 0.5, lowest: LEAST_SCORE, highlight: null };
const session = { key: "", model: null, limits: "what its operator set", answer: null, running: null, asked: "", opened: 0 };

const probe = new Probe(scene, $("stage"), $("tooltip"));
const viewer = new Viewer($("stage"), $("canvas"), {
  paint: (context, view, unit) => scene.image && paint(context, scene, view, unit),
  look: (point) => probe.look(point),
  zoomed: (percent) => { $("zoom-value").textContent = `${percent} %`; },
});
probe.viewer = viewer;

async function connect() {
  try {
    session.model = await getModel(session.key);
  } catch (error) {
    $("model").textContent = "Not connected";
    $("model").dataset.state = "away";
    return fail(error, connect);
  }
  clearNotice();
  const { name, version, tasks, limits, defaults, tta } = session.model;
  $("model").replaceChildren(make("strong", {}, name), ` ${version}`);
  $("model").dataset.state = "ready";
  session.limits = $("limits").textContent = limitsText(limits);
  scene.threshold = defaults.threshold;
  scene.lowest = Math.min(LEAST_SCORE, scene.threshold);
  giveTitles(tasks);
  buildTasks($("tasks"), tasks, settingsChanged);
  $("tta").disabled = !tta;
  $("tta-hint").textContent = tta ? "looks several times: slower, often better" : "not with this model: it was exported for one size";
  settingsChanged();
  if (scene.image) await run();
}

async function take(blob, name) {
  const turn = ++session.opened; // a slow file must not replace an image that was chosen after it
  session.running?.abort();
  busy(session.running = null);
  clearNotice();
  say(`Opening ${name} …`);
  let image;
  try {
    image = await openImage(blob, name);
  } catch (error) {
    if (turn === session.opened) fail(error);
    return;
  }
  if (turn !== session.opened) return;
  Object.assign(scene, { image, layers: [], highlight: null });
  Object.assign(session, { answer: null, asked: "" });
  $("save-json").disabled = $("save-png").disabled = true;
  $("timings").textContent = "";
  $("layers-card").hidden = $("found-card").hidden = $("tooltip").hidden = $("sentence").hidden = true;
  $("stage").dataset.state = "ready";
  $("prompt").hidden = true;
  $("canvas").hidden = $("toolbar").hidden = false;
  $("canvas").setAttribute("aria-label", `${name}, ${image.width} by ${image.height} pixels`);
  viewer.show(image);
  settingsChanged();
  if (session.model) await run();
}

async function takeExample(source) {
  const response = await fetch(source).catch(() => null);
  if (!response?.ok) return fail(new ServiceError(0, ""), () => takeExample(source));
  await take(await response.blob(), source.split("/").pop());
}

function takeFirst(files) {
  const file = [...files].find((one) => one.type.startsWith("image/")) ?? files[0];
  if (file) take(file, file.name || "pasted image.png");
}

function settings() {
  const tasks = [...document.querySelectorAll("#tasks input:checked")].map((box) => box.value);
  return { tasks, tta: $("tta").checked, threshold: scene.lowest };
}

function settingsChanged() {
  const now = settings();
  const stale = Boolean(session.asked) && session.asked !== JSON.stringify(now);
  $("run").disabled = !scene.image || !session.model || !now.tasks.length;
  $("run").classList.toggle("primary", stale && now.tasks.length > 0);
  $("run-hint").textContent = now.tasks.length ? (stale ? "Changed since the last run." : "") : "Choose at least one task.";
}

async function run() {
  const asked = settings();
  if (!scene.image || !asked.tasks.length) return;
  session.running?.abort();
  const control = session.running = new AbortController();
  clearNotice();
  busy(control);
  try {
    const started = performance.now();
    const answer = await predict(scene.image, asked, session.key, control.signal);
    if (!control.signal.aborted) show(answer, asked, performance.now() - started);
  } catch (error) {
    if (session.running !== control) return; // another run has taken over; it speaks for itself
    if (error.name === "AbortError") say("Cancelled. Run again when you like.");
    else fail(error, run);
  } finally {
    if (session.running === control) busy(session.running = null);
  }
}

function busy(control) {
  $("busy").hidden = !control;
  $("stage").setAttribute("aria-busy", String(Boolean(control)));
  if (control) say("Analysing …");
}

function show(answer, asked, roundTrip) {
  const [result] = answer.body.results;
  scene.layers = readLayers(result, session.model.tasks, scene.layers);
  scene.highlight = null;
  Object.assign(session, { answer, asked: JSON.stringify(asked) });
  $("save-json").disabled = $("save-png").disabled = false;
  $("layers-card").hidden = $("found-card").hidden = false;
  buildLayers($("layers"), scene, { changed, filtered });
  const times = Object.entries({ ...answer.body.timings_ms, "round trip": roundTrip });
  $("timings").textContent = times.map(([name, ms]) => `${name} ${Math.round(ms)} ms`).join(" · ");
  changed();
  filtered();
  settingsChanged();
  say(summary());
}

function changed() {
  const texts = sentences(scene.layers);
  $("sentence").replaceChildren(...texts.map((text) => make("p", {}, text)));
  $("sentence").hidden = !texts.length;
  viewer.redraw();
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

function summary() {
  const counted = (count, one, many) => `${count} ${count === 1 ? one : many}`;
  const parts = scene.layers.flatMap((layer) => [
    layer.shares && `${counted(layer.shares.size, "class", "classes")} in the mask`,
    layer.boxes && counted(shownBoxes(layer, scene.threshold).length, "box", "boxes"),
    layer.top?.length && `class ${layer.top[0].name} (${layer.top[0].score.toFixed(2)})`,
    layer.caption && `“${layer.caption}”`,
  ]);
  return `${scene.image.name}, ${scene.image.width} × ${scene.image.height}: ${parts.filter(Boolean).join(", ")}.`;
}

const say = (words) => { $("status").textContent = words; };

function fail(error, again) {
  if (!(error instanceof ServiceError)) throw error; // a fault of this page: to the console, where tests look
  const { title, needsKey } = showError($("notice"), error, session.limits, choose, again);
  $("key-form").hidden = !needsKey;
  if (needsKey) $("key").focus();
  say(session.answer ? summary() : title); // an earlier answer is still shown; the notice speaks for itself
}

function clearNotice() {
  $("notice").hidden = $("key-form").hidden = true;
}

function save(blob, ending) {
  const address = URL.createObjectURL(blob);
  make("a", { href: address, download: scene.image.name.replace(/\.[^.]*$/, "") + ending }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

$("save-json").addEventListener("click", () => save(new Blob([session.answer.text], { type: "application/json" }), ".json"));

$("save-png").addEventListener("click", () => {
  const { width, height } = scene.image;
  const scale = Math.min(1, Math.sqrt(CANVAS_PIXELS / (width * height)));
  const canvas = make("canvas", { width: Math.floor(width * scale), height: Math.floor(height * scale) });
  const unit = Math.max(1, Math.max(canvas.width, canvas.height) / 1200);
  paint(canvas.getContext("2d"), { ...scene, highlight: null }, { scale, x: 0, y: 0 }, unit);
  const texts = sentences(scene.layers);
  const whole = texts.length ? withSentences(canvas, texts, unit) : canvas;
  whole.toBlob((blob) => {
    if (blob) save(blob, "_layers.png");
    say(blob ? `Saved at ${whole.width} × ${whole.height} pixels.` : "The image is too large for this browser's memory.");
  }, "image/png");
});

const choose = () => $("file").click();
const clicks = {
  choose, another: choose, run, cancel: () => session.running?.abort(), tta: settingsChanged,
  "zoom-in": () => viewer.zoom(ZOOM), "zoom-out": () => viewer.zoom(1 / ZOOM), "zoom-fit": () => viewer.fit(),
};
for (const [id, press] of Object.entries(clicks)) $(id).addEventListener("click", press);
for (const button of document.querySelectorAll(".example")) button.addEventListener("click", () => takeExample(button.dataset.src));
$("file").addEventListener("change", () => {
  takeFirst($("file").files);
  $("file").value = ""; // so that the same file can be chosen twice
});
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  session.key = $("key").value;
  $("key").value = "";
  if (session.model) run();
  else connect();
});
document.addEventListener("paste", (event) => takeFirst(event.clipboardData.files));
for (const name of ["dragover", "drop", "dragleave"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("stage").classList.toggle("over", name === "dragover");
    if (name === "drop") takeFirst(event.dataTransfer.files);
  });
}

connect();
