// The window onto an image: fit, zoom, pan, and the point that is being looked at. Mouse, touch and keys.

export const ZOOM = 1.4; // of one step
const MOST = 16; // CSS pixels per image pixel
const CLICK = 5; // CSS pixels that a finger or mouse may wander and still mean "here"

export class Viewer {
  /** paint(context, view, unit) draws; look({x, y} or null) is told the image pixel under the pointer, zoomed(percent) the zoom. */
  constructor(stage, canvas, { paint, look, zoomed }) {
    Object.assign(this, { stage, canvas, paintScene: paint, look, zoomed });
    this.context = canvas.getContext("2d");
    this.size = null;
    this.view = { scale: 1, x: 0, y: 0 };
    this.fitted = true;
    this.last = null; // where the pointer that is down was last
    this.queued = 0;
    new ResizeObserver(() => this.layout()).observe(stage);
    this.listen();
  }

  show({ width, height }) {
    this.size = { width, height };
    this.fitted = true;
    this.layout();
  }

  /** Gives the canvas the room there is: as wide as the stage, as high as the image then is, within the window. */
  layout() {
    if (!this.size) return;
    const unit = Math.min(2, window.devicePixelRatio || 1);
    const wide = this.stage.clientWidth;
    const tall = Math.round(Math.max(200, Math.min((wide * this.size.height) / this.size.width, 0.72 * window.innerHeight)));
    if (this.unit !== unit || this.wide !== wide || this.tall !== tall) {
      Object.assign(this, { unit, wide, tall });
      this.canvas.style.height = `${tall}px`;
      this.canvas.width = Math.max(1, Math.round(wide * unit));
      this.canvas.height = Math.max(1, Math.round(tall * unit));
    }
    this.set(this.fitted ? 0 : this.view.scale, this.view.x, this.view.y);
    this.paintScene(this.context, this.view, this.unit); // now: a canvas that changed its size is blank until it is painted
  }

  /** The scale within what is allowed: the least shows all of the image. */
  bounded(scale) {
    const least = Math.min(this.canvas.width / this.size.width, this.canvas.height / this.size.height);
    return Math.max(least, Math.min(scale, MOST * this.unit));
  }

  /** Moves the window; the image stays in it, in the middle where it is smaller. */
  set(wanted, x, y) {
    const scale = this.bounded(wanted);
    this.fitted = scale <= this.bounded(0) * 1.001;
    const inside = (offset, size, room) => (room >= size ? (size - room) / 2 : Math.max(0, Math.min(offset, size - room)));
    this.view = {
      scale,
      x: inside(x, this.size.width, this.canvas.width / scale),
      y: inside(y, this.size.height, this.canvas.height / scale),
    };
    this.stage.dataset.zoomed = String(!this.fitted);
    this.zoomed(Math.round((100 * scale) / this.unit));
    this.redraw();
  }

  redraw() {
    if (this.queued || !this.size) return;
    this.queued = requestAnimationFrame(() => {
      this.queued = 0;
      this.paintScene(this.context, this.view, this.unit);
    });
  }

  fit() {
    if (this.size) this.set(0, 0, 0);
  }

  /** Zooms by a factor; the image point under (cx, cy), in CSS pixels of the canvas, stays where it is. */
  zoom(factor, cx = this.wide / 2, cy = this.tall / 2) {
    if (!this.size) return;
    const before = this.toImage(cx, cy);
    const scale = this.bounded(this.view.scale * factor);
    this.set(scale, before.x - (cx * this.unit) / scale, before.y - (cy * this.unit) / scale);
  }

  /** Shows a box {x1, y1, x2, y2} large, with some of what is around it. */
  zoomTo(box) {
    const room = 3 * Math.max(box.x2 - box.x1, box.y2 - box.y1, 8);
    const scale = this.bounded(Math.min(this.canvas.width, this.canvas.height) / room);
    this.set(scale, (box.x1 + box.x2 - this.canvas.width / scale) / 2, (box.y1 + box.y2 - this.canvas.height / scale) / 2);
  }

  toImage(cx, cy) {
    return { x: (cx * this.unit) / this.view.scale + this.view.x, y: (cy * this.unit) / this.view.scale + this.view.y };
  }

  /** Where an image point lies, in CSS pixels of the canvas. */
  toCanvas(x, y) {
    return { x: ((x - this.view.x) * this.view.scale) / this.unit, y: ((y - this.view.y) * this.view.scale) / this.unit };
  }

  lookAt(at) {
    const { x, y } = this.toImage(at.x, at.y);
    const inside = x >= 0 && y >= 0 && x < this.size.width && y < this.size.height;
    this.look(inside ? { x: Math.floor(x), y: Math.floor(y) } : null);
  }

  /** Moves the window by CSS pixels. */
  pan(dx, dy) {
    const step = this.unit / this.view.scale;
    this.set(this.view.scale, this.view.x - dx * step, this.view.y - dy * step);
  }

  listen() {
    const { canvas } = this;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !event.isPrimary) return;
      canvas.setPointerCapture(event.pointerId);
      this.last = this.pressed = place(event);
    });
    canvas.addEventListener("pointermove", (event) => {
      const { x, y } = place(event);
      if (!this.last) return this.lookAt({ x, y });
      if (!event.isPrimary || (this.pressed && Math.hypot(x - this.pressed.x, y - this.pressed.y) <= CLICK)) return;
      this.pan(x - this.last.x, y - this.last.y);
      this.last = { x, y };
      this.pressed = null;
    });
    const release = (event) => {
      if (this.pressed && event.type === "pointerup") this.lookAt(place(event));
      this.last = this.pressed = null;
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && !this.last && this.look(null));
    // A plain wheel scrolls the page; with Ctrl (which a trackpad's pinch sends too) it zooms.
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const { x, y } = place(event);
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), x, y);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (!this.size || event.ctrlKey || event.metaKey || event.altKey) return;
    const keys = {
      ArrowLeft: () => this.pan(64, 0),
      ArrowRight: () => this.pan(-64, 0),
      ArrowUp: () => this.pan(0, 64),
      ArrowDown: () => this.pan(0, -64),
      "+": () => this.zoom(ZOOM),
      "=": () => this.zoom(ZOOM),
      "-": () => this.zoom(1 / ZOOM),
      0: () => this.fit(),
    };
    keys[event.key]?.();
    if (keys[event.key]) event.preventDefault();
  }
}
