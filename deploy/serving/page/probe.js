// What lies under the mouse or the finger: a tooltip and a highlighted box.

import { shownBoxes } from "./layers.js";
import { covers } from "./objects.js";
import { make, percent, swatch } from "./panel.js";

const SLACK = 4; // CSS pixels beside a box that still count as it

export class Probe {
  /** scene: what is shown; viewer is set after construction, as both need each other. */
  constructor(scene, stage, tip) {
    Object.assign(this, { scene, stage, tip, viewer: null });
  }

  /** Looks at an image pixel {x, y}, or away (null). */
  look(point) {
    const before = this.scene.highlight;
    this.scene.highlight = null;
    const seen = point ? this.under(point) : [];
    if (this.scene.highlight !== before) this.viewer.redraw();
    this.show(seen, point);
  }

  /** Highlights one box from elsewhere on the page, or none (null). */
  point(layer, box) {
    this.scene.highlight = box;
    this.viewer.redraw();
    this.show(box ? [ofBox(layer, box)] : [], box && { x: (box.x1 + box.x2) / 2, y: box.y2 });
  }

  /** Everything visible at a pixel, highest layer first. */
  under(point) {
    const seen = [];
    for (const layer of this.scene.layers.filter((one) => one.visible).reverse()) {
      const box = layer.boxes && this.boxAt(layer, point);
      if (box) {
        this.scene.highlight ??= box;
        seen.push(ofBox(layer, box));
      }
      const area = layer.labels && layer.classes[layer.labels[point.y * layer.width + point.x]];
      if (area && !layer.hidden.has(area.index)) {
        seen.push({ ...area, detail: `${percent(layer.shares.get(area.index))} of the image` });
      }
    }
    return seen;
  }

  /** The shown box around a point whose object lies there, else the smallest: what lies inside another stays reachable. */
  boxAt(layer, { x, y }) {
    const slack = (SLACK * this.viewer.unit) / this.viewer.view.scale;
    const area = (box) => (box.x2 - box.x1) * (box.y2 - box.y1);
    return shownBoxes(layer, this.scene.threshold)
      .filter((box) => x >= box.x1 - slack && x <= box.x2 + slack && y >= box.y1 - slack && y <= box.y2 + slack)
      .sort((a, b) => covers(b, x, y) - covers(a, x, y) || area(a) - area(b))[0];
  }

  show(seen, point) {
    this.tip.hidden = !seen.length;
    if (!seen.length) return;
    this.tip.replaceChildren(...seen.map(line));
    const { x, y } = this.viewer.toCanvas(point.x + 0.5, point.y + 0.5);
    const { clientWidth: wide, clientHeight: tall } = this.stage;
    const { offsetWidth: width, offsetHeight: height } = this.tip;
    const below = y + 16 + height < tall ? y + 16 : y - height - 12;
    this.tip.style.left = `${Math.max(4, Math.min(x + 14, wide - width - 4))}px`;
    this.tip.style.top = `${Math.max(4, Math.min(below, tall - height - 4))}px`;
  }
}

const ofBox = (layer, box) => ({ colour: layer.classes[box.index].colour, name: box.name, detail: `score ${box.score.toFixed(2)}` });

const line = ({ colour, name, detail }) =>
  make("div", { className: "tip-line" }, swatch(colour), make("strong", {}, name), make("span", {}, detail));
