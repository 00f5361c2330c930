// The panel beside the picture: what is asked for, layers with legends, what was found, timings.

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

const KINDS = { segmentation: "Mask", detection: "Boxes", classification: "Class" };
const percent = (share) => (share > 0 && share < 0.01 ? "< 1 %" : `${Math.round(100 * share)} %`);

/** The service says "seg"; a person reads "Mask". The name is added where a model has two tasks of a kind. */
export function titleOf(name, tasks) {
  const kind = KINDS[tasks[name].type] ?? name;
  const same = Object.values(tasks).filter((task) => task.type === tasks[name].type);
  return same.length > 1 ? `${kind} (${name})` : kind;
}

const ORDER = Object.keys(KINDS); // from the lowest layer to the highest

/** The names of the tasks in the order of their layers. */
export function inOrder(tasks) {
  return Object.keys(tasks).sort((a, b) => ORDER.indexOf(tasks[a].type) - ORDER.indexOf(tasks[b].type));
}

export function buildTasks(holder, tasks, changed) {
  const legend = holder.querySelector("legend");
  holder.replaceChildren(legend, ...inOrder(tasks).map((name) =>
    make("label", { className: "check" },
      make("input", { type: "checkbox", checked: true, name: "task", value: name, on: { change: changed } }),
      make("span", {}, titleOf(name, tasks)))));
}

/** One block per layer: switch, opacity, threshold for boxes, legend. changed() repaints; filtered() also lists anew. */
export function buildLayers(holder, scene, { changed, filtered }) {
  holder.replaceChildren(...scene.layers.map((layer) => {
    const block = make("section", { className: "layer", data: { task: layer.task }, aria: { label: `${layer.title} layer` } });
    block.append(layerHead(layer, changed));
    if (layer.type === "detection") block.append(thresholdRow(scene, layer, filtered));
    if (layer.type !== "classification") block.append(legend(layer, scene, filtered));
    return block;
  }));
}

function layerHead(layer, changed) {
  const shown = make("input", { type: "checkbox", checked: layer.visible, className: "layer-switch" });
  shown.addEventListener("change", () => {
    layer.visible = shown.checked;
    changed();
  });
  const slider = range(`${layer.title}: opacity`, layer.opacity, 0, 1, 0.01, percent, (value) => {
    layer.opacity = value;
    changed();
  }, "opacity");
  return make("div", { className: "layer-head" },
    make("label", { className: "check layer-name" }, shown, make("span", {}, layer.title)), slider);
}

function thresholdRow(scene, layer, filtered) {
  const row = range("Least score", scene.threshold, scene.lowest, 1, 0.01, (value) => value.toFixed(2), (value) => {
    scene.threshold = value;
    filtered();
  }, "threshold", true);
  row.title = `Hides boxes of ${layer.title.toLowerCase()} below this score; nothing is sent`;
  return row;
}

function range(label, value, min, max, step, words, apply, name, visible = false) {
  const output = make("output", { className: "value" }, words(value));
  const input = make("input", { type: "range", min, max, step, data: { control: name }, aria: { valuetext: words(value) } });
  input.value = value;
  input.addEventListener("input", () => {
    output.textContent = words(input.valueAsNumber);
    input.setAttribute("aria-valuetext", words(input.valueAsNumber));
    apply(input.valueAsNumber);
  });
  return make("label", { className: `range ${name}` },
    make("span", { className: visible ? "range-name" : "sr-only" }, label), input, output);
}

function legend(layer, scene, filtered) {
  const boxes = [];
  const item = (entry) => {
    const box = make("input", { type: "checkbox", checked: !layer.hidden.has(entry.index), data: { index: entry.index } });
    const swatch = make("span", { className: "swatch", aria: { hidden: "true" } });
    swatch.style.setProperty("--class", cssColour(entry.colour)); // through the object model: the CSP forbids style attributes
    box.addEventListener("change", () => {
      if (box.checked) layer.hidden.delete(entry.index);
      else layer.hidden.add(entry.index);
      filtered();
    });
    boxes.push(box);
    return make("li", {}, make("label", { className: "class-toggle" }, box, swatch,
      make("span", { className: "class-name" }, entry.name),
      make("span", { className: "count muted", data: { count: entry.index } }, presence(layer, scene, entry.index))));
  };
  const all = (on) => () => {
    for (const box of boxes) {
      box.checked = on;
      if (on) layer.hidden.delete(Number(box.dataset.index));
      else layer.hidden.add(Number(box.dataset.index));
    }
    filtered();
  };
  const amount = (entry) => layer.shares?.get(entry.index) ?? layer.boxes?.filter((box) => box.index === entry.index).length ?? 0;
  const here = layer.classes.filter((entry) => amount(entry) > 0).sort((a, b) => amount(b) - amount(a));
  const away = layer.classes.filter((entry) => amount(entry) === 0);
  const parts = [
    make("div", { className: "legend-head" },
      make("span", { className: "muted small" }, `${here.length} of ${layer.classes.length} classes here`),
      make("span", { className: "pair", aria: { role: "group", label: `${layer.title}: classes` } },
        make("button", { type: "button", className: "quiet", on: { click: all(true) } }, "All"),
        make("button", { type: "button", className: "quiet", on: { click: all(false) } }, "None"))),
    make("ul", { className: "legend" }, ...here.map(item)),
  ];
  if (away.length) {
    parts.push(make("details", {}, make("summary", { className: "muted small" }, `${away.length} not in this picture`),
      make("ul", { className: "legend" }, ...away.map(item))));
  }
  return make("div", { className: "legend-holder" }, ...parts);
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

/** Tables of what was found: class with its runners-up, and the boxes that are shown, each a button to look at it. */
export function buildFound(holder, scene, { highlight, open }) {
  const parts = [];
  for (const layer of scene.layers) {
    if (layer.type === "classification") parts.push(topTable(layer));
    if (layer.type === "detection") parts.push(boxTable(layer, scene, highlight, open));
    if (layer.type === "segmentation") parts.push(shareTable(layer));
  }
  holder.replaceChildren(...parts);
}

const cell = (text, className = "number") => make("td", { className }, text);
const head = (...names) => make("thead", {}, make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name))));

function topTable(layer) {
  const rows = layer.top.map((entry) => {
    const bar = make("span", { className: "bar", aria: { hidden: "true" } });
    bar.style.setProperty("--share", `${100 * entry.score}%`);
    return make("tr", {}, make("th", { scope: "row" }, entry.name, bar), cell(entry.score.toFixed(2)));
  });
  return make("table", { className: "found", data: { table: layer.task } },
    make("caption", {}, layer.title), head("Class", "Score"), make("tbody", {}, ...rows));
}

function boxTable(layer, scene, highlight, open) {
  const shown = shownBoxes(layer, scene.threshold);
  const rows = shown.map((box) => {
    const swatch = make("span", { className: "swatch", aria: { hidden: "true" } });
    swatch.style.setProperty("--class", cssColour(layer.classes[box.index].colour));
    const button = make("button", {
      type: "button", className: "row-button", title: "Show it in the picture",
      on: { click: () => open(box), focus: () => highlight(layer, box), blur: () => highlight(null, null) },
    }, swatch, make("span", {}, box.name));
    const [x1, y1, x2, y2] = [box.x1, box.y1, box.x2, box.y2].map(Math.round);
    return make("tr", { on: { mouseenter: () => highlight(layer, box), mouseleave: () => highlight(null, null) } },
      make("th", { scope: "row" }, button), cell(box.score.toFixed(2)),
      cell(`${x1}, ${y1}`), cell(`${x2 - x1} × ${y2 - y1}`));
  });
  const hidden = layer.boxes.length - shown.length;
  const count = `${shown.length} shown${hidden ? `, ${hidden} hidden by score or class` : ""}`;
  const body = rows.length ? rows : [make("tr", {}, make("td", { colSpan: 4, className: "muted" },
    layer.boxes.length ? "Nothing at this score. Lower the least score to see more." : "Nothing was found."))];
  return make("div", { className: "scroll" }, make("table", { className: "found", data: { table: layer.task } },
    make("caption", {}, `${layer.title} `, make("span", { className: "muted small" }, count)),
    head("Class", "Score", "Left, top", "Size"), make("tbody", {}, ...body)));
}

/** For screen readers; others see the shares in the legend. */
function shareTable(layer) {
  const rows = [...layer.shares].map(([index, share]) =>
    make("tr", {}, make("th", { scope: "row" }, layer.classes[index].name), cell(percent(share))));
  return make("table", { className: "sr-only", data: { table: layer.task } },
    make("caption", {}, `${layer.title}: shares of the picture`), head("Class", "Share"), make("tbody", {}, ...rows));
}

/** A bar of the server's milliseconds and the numbers below it; "total" and the round trip come last. */
export function buildTimings(holder, timings, roundTrip) {
  const steps = Object.entries(timings ?? {}).filter(([name, ms]) => name !== "total" && Number.isFinite(ms));
  const sum = Math.max(1e-9, steps.reduce((total, [, ms]) => total + ms, 0));
  const bar = make("div", { className: "time-bar", aria: { hidden: "true" } }, ...steps.map(([name, ms]) => {
    const part = make("span", { className: "time-part", title: name });
    part.style.flexGrow = String(ms / sum);
    return part;
  }));
  const all = [...steps, ...(timings?.total === undefined ? [] : [["server", timings.total]]), ["round trip", roundTrip]];
  const list = make("dl", { className: "times" }, ...all.map(([name, ms]) =>
    make("div", {}, make("dt", {}, name), make("dd", {}, ms < 9.95 ? `${ms.toFixed(1)} ms` : `${Math.round(ms)} ms`))));
  holder.replaceChildren(bar, list);
  holder.hidden = false;
}
