// What stands beside the image: what is asked for, layers with legends, what was found, and errors with a way out.

import { advice } from "./api.js";
import { cssColour, shownBoxes } from "./layers.js";

/** Makes an element: properties as given, on = {event: handler}, data = data-*, aria = aria-* and the role, then its children. */
export function make(tag, { on = {}, data = {}, aria = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [event, handler] of Object.entries(on)) element.addEventListener(event, handler);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(name === "role" ? name : `aria-${name}`, value);
  element.append(...children);
  return element;
}

export const percent = (share) => (share > 0 && share < 0.01 ? "< 1 %" : `${Math.round(100 * share)} %`);

/** Gives every task the title that people read: its type, and its name where a model has two of a type. */
export function giveTitles(tasks) {
  for (const [name, task] of Object.entries(tasks)) {
    const type = task.type[0].toUpperCase() + task.type.slice(1);
    task.title = Object.values(tasks).filter((other) => other.type === task.type).length > 1 ? `${type} (${name})` : type;
  }
}

export function buildTasks(holder, tasks, changed) {
  holder.replaceChildren(holder.querySelector("legend"), ...Object.entries(tasks).map(([name, { title }]) =>
    make("label", { className: "check" },
      make("input", { type: "checkbox", checked: true, value: name, on: { change: changed } }), make("span", {}, title))));
}

/** One block per layer: switch, opacity, threshold for boxes, legend. changed() repaints; filtered() also lists anew. */
export function buildLayers(holder, scene, { changed, filtered }) {
  holder.replaceChildren(...scene.layers.map((layer) => {
    const block = make("section", { className: "layer", data: { task: layer.task }, aria: { label: `${layer.title} layer` } });
    block.append(layerHead(layer, changed));
    if (layer.boxes) {
      block.append(range("Least score", "range-name", "threshold", scene.threshold, scene.lowest, (value) => value.toFixed(2), (value) => {
        scene.threshold = value;
        filtered();
      }));
    }
    if (layer.boxes || layer.labels) block.append(legend(layer, scene, filtered));
    return block;
  }));
}

function layerHead(layer, changed) {
  const shown = make("input", { type: "checkbox", checked: layer.visible, className: "layer-switch" });
  shown.addEventListener("change", () => {
    layer.visible = shown.checked;
    changed();
  });
  const name = make("label", { className: "check layer-name" }, shown, make("span", {}, layer.title));
  if (!layer.boxes && !layer.labels && !layer.top) return make("div", { className: "layer-head" }, name); // a sentence
  const slider = range(`${layer.title}: opacity`, "sr-only", "opacity", layer.opacity, 0, percent, (value) => {
    layer.opacity = value;
    changed();
  });
  return make("div", { className: "layer-head" }, name, slider);
}

function range(label, className, control, value, min, words, apply) {
  const output = make("output", { className: "value" }, words(value));
  const input = make("input", { type: "range", min, max: 1, step: 0.01, data: { control }, aria: { valuetext: words(value) } });
  input.value = value;
  input.addEventListener("input", () => {
    output.textContent = words(input.valueAsNumber);
    input.setAttribute("aria-valuetext", words(input.valueAsNumber));
    apply(input.valueAsNumber);
  });
  return make("label", { className: "range" }, make("span", { className }, label), input, output);
}

function legend(layer, scene, filtered) {
  const boxes = [];
  const hide = (box, on) => {
    box.checked = on;
    if (on) layer.hidden.delete(Number(box.dataset.index));
    else layer.hidden.add(Number(box.dataset.index));
    layer.tint = layer.cover = null;
  };
  const item = ({ index, name, colour }) => {
    const box = make("input", { type: "checkbox", checked: !layer.hidden.has(index), data: { index } });
    box.addEventListener("change", () => {
      hide(box, box.checked);
      filtered();
    });
    boxes.push(box);
    return make("li", {}, make("label", { className: "class-toggle" }, box, swatch(colour),
      make("span", { className: "class-name" }, name),
      make("span", { className: "count muted", data: { count: index } }, presence(layer, scene, index))));
  };
  const all = (on) => () => {
    for (const box of boxes) hide(box, on);
    filtered();
  };
  const amount = ({ index }) => layer.shares?.get(index) ?? layer.boxes?.filter((box) => box.index === index).length ?? 0;
  const here = layer.classes.filter(amount).sort((a, b) => amount(b) - amount(a));
  const away = layer.classes.filter((entry) => !amount(entry));
  const list = (entries) => make("ul", { className: "legend" }, ...entries.map(item));
  return make("div", {},
    make("div", { className: "legend-head" },
      make("span", { className: "muted small" }, `${here.length} of ${layer.classes.length} classes here`),
      make("span", { className: "pair", aria: { role: "group", label: `${layer.title}: classes` } },
        make("button", { type: "button", className: "quiet", on: { click: all(true) } }, "All"),
        make("button", { type: "button", className: "quiet", on: { click: all(false) } }, "None"))),
    list(here), make("details", { hidden: !away.length },
      make("summary", { className: "muted small" }, `${away.length} not in this image`), list(away)));
}

export function swatch(colour) {
  const element = make("span", { className: "swatch", aria: { hidden: "true" } });
  element.style.setProperty("--class", cssColour(colour)); // through the object model: the CSP forbids style attributes
  return element;
}

function presence(layer, scene, index) {
  if (layer.shares) return layer.shares.has(index) ? percent(layer.shares.get(index)) : "";
  const count = layer.boxes.filter((box) => box.index === index && box.score >= scene.threshold).length;
  return count ? `× ${count}` : "";
}

/** Writes shares and box counts into the legends again, after the threshold moved. */
export function updateCounts(holder, scene) {
  for (const layer of scene.layers) {
    for (const count of holder.querySelectorAll(`[data-task="${CSS.escape(layer.task)}"] [data-count]`)) {
      count.textContent = presence(layer, scene, Number(count.dataset.count));
    }
  }
}

/** Tables of what was found: each box that is shown is a button to look at it. */
export function buildFound(holder, scene, { highlight, open }) {
  holder.replaceChildren(...scene.layers.flatMap((layer) => [
    layer.boxes && boxTable(layer, scene, highlight, open),
    layer.top && table(layer, "found", "", ["Class", "Score"], layer.top.map(({ name, score }) => row(name, score.toFixed(2)))),
    layer.caption && table(layer, "found", "", ["Sentence", "Score"], [row(layer.caption, layer.score.toFixed(2))]),
  ]).filter(Boolean));
}

const row = (head, ...cells) => make("tr", {}, make("th", { scope: "row" }, head), ...cells.map((text) => make("td", { className: "number" }, text)));

function table(layer, className, caption, names, rows) {
  return make("table", { className, data: { table: layer.task } },
    make("caption", {}, `${layer.title} `, make("span", { className: "muted small" }, caption)),
    make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, ...rows));
}

function boxTable(layer, scene, highlight, open) {
  const shown = shownBoxes(layer, scene.threshold);
  const rows = shown.map((box) => {
    const button = make("button", {
      type: "button", className: "row-button", title: "Show it in the image",
      on: { click: () => open(box), focus: () => highlight(layer, box), blur: () => highlight(null, null) },
    }, swatch(layer.classes[box.index].colour), make("span", {}, box.name));
    const [x1, y1, x2, y2] = [box.x1, box.y1, box.x2, box.y2].map(Math.round);
    return row(button, box.score.toFixed(2), `${x1}, ${y1}`, `${x2 - x1} × ${y2 - y1}`);
  });
  if (!rows.length) rows.push(row(layer.boxes.length ? "Nothing at this score. Lower the least score to see more." : "Nothing was found."));
  const away = layer.boxes.length - shown.length;
  const caption = `${shown.length} shown${away ? `, ${away} hidden by score or class` : ""}`;
  return make("div", { className: "scroll" }, table(layer, "found", caption, ["Class", "Score", "Left, top", "Size"], rows));
}

/** Shows a ServiceError with what can be done about it: again() repeats what failed, if it can. The title comes back. */
export function showError(box, error, limits, choose, again) {
  const [title, help, action] = advice(error.status, limits);
  const parts = [make("p", { className: "notice-title" }, title), make("p", {}, help)];
  const reasons = [error.message && `The reason given: ${error.message}`, error.requestId && `Request ${error.requestId}`];
  parts.push(...reasons.filter(Boolean).map((text) => make("p", { className: "muted small" }, text)));
  const press = { retry: again, choose }[action];
  const button = make("button", { type: "button", on: { click: press } }, action === "choose" ? "Choose an image" : "Try again");
  if (press) parts.push(make("div", { className: "row" }, button));
  button.disabled = error.retryAfter > 0; // cannot be pressed before the server's Retry-After has passed
  if (button.disabled) setTimeout(() => { button.disabled = false; }, 1000 * Math.min(error.retryAfter, 120));
  box.replaceChildren(...parts);
  box.hidden = false;
  return { title, needsKey: action === "key" };
}
