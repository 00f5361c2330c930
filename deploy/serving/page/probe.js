// What lies under the mouse, the finger or the keyboard's cross: a tooltip, a highlighted box, words for screen readers.

import { cssColour, shownBoxes } from "./layers.js";
import { make } from "./panel.js";

const SLACK = { touch: 12, mouse: 3, keys: 0 }; // CSS pixels beside a box that still count as it

export class Probe {
  /** scene: what is shown; viewer is set after construction, as both need each other. */
  constructor(scene, stage, tip, spoken) {
    Object.assign(this, { scene, stage, tip, spoken, viewer: null, timer: 0 });
  }

  /** Looks at a picture pixel {x, y}, or away (null). */
  look(point, pointer) {
    this.scene.cross = pointer === "keys" ? point : null;
    this.scene.highlight = null;
    const seen = point ? this.under(point, pointer) : [];
    this.viewer.redraw();
    if (!point) return this.hide();
    const { x, y } = this.viewer.toCanvas(point.x + 0.5, point.y + 0.5);
    this.show(seen, x, y);
    if (pointer === "keys") this.speak([...seen.map(words), `at ${point.x}, ${point.y}`].join("; "));
  }

  /** Highlights one box from elsewhere on the page, or none (null). */
  point(layer, box) {
    this.scene.highlight = box;
    this.viewer.redraw();
    if (!box) return this.hide();
    const { x, y } = this.viewer.toCanvas((box.x1 + box.x2) / 2, box.y2);
    this.show([ofBox(layer, box)], x, y);
  }

  /** Everything visible at a pixel, highest layer first. */
  under(point, pointer) {
    const seen = [];
    for (const layer of this.scene.layers.filter((one) => one.visible).reverse()) {
      if (layer.type === "detection") {
        const box = this.boxAt(layer, point, pointer);
        this.scene.highlight ??= box ?? null;
        if (box) seen.push(ofBox(layer, box));
      } else if (layer.type === "segmentation") {
        const entry = layer.classes[layer.labels[point.y * layer.width + point.x]];
        if (entry && !layer.hidden.has(entry.index)) seen.push(ofArea(layer, entry));
      }
    }
    return seen;
  }

  /** The smallest of the shown boxes around a point: what lies inside another stays reachable. */
  boxAt(layer, { x, y }, pointer) {
    const slack = (SLACK[pointer] * this.viewer.unit) / this.viewer.view.scale;
    const area = (box) => (box.x2 - box.x1) * (box.y2 - box.y1);
    return shownBoxes(layer, this.scene.threshold)
      .filter((box) => x >= box.x1 - slack && x <= box.x2 + slack && y >= box.y1 - slack && y <= box.y2 + slack)
      .sort((a, b) => area(a) - area(b))[0];
  }

  show(seen, x, y) {
    if (!seen.length) return this.hide();
    this.tip.replaceChildren(...seen.map(line));
    this.tip.hidden = false;
    const { clientWidth: wide, clientHeight: tall } = this.stage;
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const below = y + 16 + height < tall ? y + 16 : y - height - 12;
    this.tip.style.left = `${Math.max(4, Math.min(x + 14, wide - width - 4))}px`;
    this.tip.style.top = `${Math.max(4, Math.min(below, tall - height - 4))}px`;
  }

  hide() {
    this.tip.hidden = true;
  }

  /** Speaks once the keys rest: every step of a held arrow key would be noise. */
  speak(text) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => { this.spoken.textContent = text; }, 300);
  }
}

const ofBox = (layer, box) => ({ colour: layer.classes[box.index].colour, name: box.name, detail: `score ${box.score.toFixed(2)}` });

function ofArea(layer, { index, name, colour }) {
  const share = layer.shares.get(index) ?? 0;
  return { colour, name, detail: `${share < 0.01 ? "under 1" : Math.round(100 * share)} % of the picture` };
}

const words = ({ name, detail }) => `${name}, ${detail}`;

function line({ colour, name, detail }) {
  const swatch = make("span", { className: "swatch", aria: { hidden: "true" } });
  swatch.style.setProperty("--class", cssColour(colour));
  return make("div", { className: "tip-line" }, swatch, make("strong", {}, name), make("span", {}, detail));
}
