// The window onto a picture: fit, zoom, pan, and the point that is being looked at. Mouse, touch and keys.

const MOST = 16; // CSS pixels per picture pixel
const STEP = 1.4;
const CLICK = 5; // CSS pixels that a finger or mouse may wander and still mean "here"

export class Viewer {
  /**
   * paint(context, view, unit) draws; look(point, pointer) is told where one looks: the point {x, y} in picture pixels or
   * null, and by what: "mouse", "touch" or "keys". zoomed(percent) is told the zoom.
   */
  constructor(stage, canvas, { paint, look, zoomed }) {
    Object.assign(this, { stage, canvas, paintScene: paint, look, zoomed });
    this.context = canvas.getContext("2d");
    this.size = null;
    this.view = { scale: 1, x: 0, y: 0 };
    this.fitted = true;
    this.point = null;
    this.pointers = new Map();
    this.queued = 0;
    new ResizeObserver(() => this.layout()).observe(stage);
    this.listen();
  }

  show({ width, height }) {
    this.size = { width, height };
    this.point = null;
    this.fitted = true;
    this.layout();
  }

  /** Gives the canvas the room there is: as wide as the stage, as high as the picture then is, within the window. */
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
    this.set(this.fitted ? this.fitScale() : this.view.scale, this.view.x, this.view.y);
    this.paintScene(this.context, this.view, this.unit); // now: a canvas that changed its size is blank until it is painted
  }

  fitScale() {
    return Math.min(this.canvas.width / this.size.width, this.canvas.height / this.size.height);
  }

  /** Moves the window; the picture stays in it, in the middle where it is smaller. */
  set(scale, x, y) {
    const least = this.fitScale();
    scale = Math.max(least, Math.min(scale, Math.max(MOST * this.unit, least)));
    this.fitted = scale <= least * 1.001;
    const inside = (offset, size, room) =>
      room >= size ? (size - room) / 2 : Math.max(0, Math.min(offset, size - room));
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
    if (!this.queued && this.size) {
      this.queued = requestAnimationFrame(() => {
        this.queued = 0;
        this.paintScene(this.context, this.view, this.unit);
      });
    }
  }

  fit() {
    if (this.size) this.set(0, 0, 0);
  }

  /** Zooms by a factor; the picture point under (cx, cy), in CSS pixels of the canvas, stays where it is. */
  zoom(factor, cx = this.wide / 2, cy = this.tall / 2) {
    if (!this.size) return;
    const before = this.toPicture(cx, cy);
    const least = this.fitScale();
    const scale = Math.max(least, Math.min(this.view.scale * factor, Math.max(MOST * this.unit, least)));
    this.set(scale, before.x - (cx * this.unit) / scale, before.y - (cy * this.unit) / scale);
  }

  zoomIn() { this.zoom(STEP); }

  zoomOut() { this.zoom(1 / STEP); }

  /** Shows a box {x1, y1, x2, y2} large, with some of what is around it. */
  zoomTo(box) {
    const room = 3 * Math.max(box.x2 - box.x1, box.y2 - box.y1, 8);
    const scale = Math.min(this.canvas.width, this.canvas.height) / room;
    const least = Math.max(scale, this.fitScale());
    this.set(scale, (box.x1 + box.x2 - this.canvas.width / least) / 2, (box.y1 + box.y2 - this.canvas.height / least) / 2);
  }

  toPicture(cx, cy) {
    return { x: (cx * this.unit) / this.view.scale + this.view.x, y: (cy * this.unit) / this.view.scale + this.view.y };
  }

  /** Where a picture point lies, in CSS pixels of the canvas. */
  toCanvas(x, y) {
    return { x: ((x - this.view.x) * this.view.scale) / this.unit, y: ((y - this.view.y) * this.view.scale) / this.unit };
  }

  lookAt(cx, cy, pointer) {
    const { x, y } = this.toPicture(cx, cy);
    const inside = x >= 0 && y >= 0 && x < this.size.width && y < this.size.height;
    this.point = inside ? { x: Math.floor(x), y: Math.floor(y) } : null;
    this.look(this.point, pointer);
  }

  lookAway() {
    this.point = null;
    this.look(null, "mouse");
  }

  listen() {
    const { canvas } = this;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, place(event));
      this.pressed = this.pointers.size === 1 ? place(event) : null;
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = place(event);
      const before = this.pointers.get(event.pointerId);
      if (!before) return event.pointerType === "mouse" ? this.lookAt(now.x, now.y, "mouse") : undefined;
      this.drag(event.pointerId, before, now);
    });
    const release = (event) => {
      const meant = this.pressed && event.type === "pointerup" && this.pointers.size === 1;
      this.pointers.delete(event.pointerId);
      const { x, y } = place(event);
      if (meant) this.lookAt(x, y, event.pointerType === "mouse" ? "mouse" : "touch");
      this.pressed = null;
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", (event) => {
      if (event.pointerType === "mouse" && !this.pointers.size) this.lookAway();
    });
    canvas.addEventListener("dblclick", (event) => {
      const { x, y } = place(event);
      if (this.fitted) this.zoom(Math.max(2, this.unit / this.view.scale), x, y);
      else this.fit();
    });
    // A plain wheel scrolls the page; with Ctrl (which a trackpad's pinch sends too) it zooms.
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const { x, y } = place(event);
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), x, y);
    }, { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => this.lookAway());
  }

  drag(id, before, now) {
    const other = [...this.pointers].find(([key]) => key !== id)?.[1];
    if (this.pressed && Math.hypot(now.x - this.pressed.x, now.y - this.pressed.y) <= CLICK) return;
    this.pressed = null;
    this.pointers.set(id, now);
    if (other) {
      const spread = Math.hypot(now.x - other.x, now.y - other.y) / Math.max(1, Math.hypot(before.x - other.x, before.y - other.y));
      this.zoom(spread, (now.x + other.x) / 2, (now.y + other.y) / 2);
    }
    const step = this.unit / this.view.scale / (other ? 2 : 1);
    this.set(this.view.scale, this.view.x - (now.x - before.x) * step, this.view.y - (now.y - before.y) * step);
  }

  key(event) {
    if (!this.size || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const others = {
      "+": () => this.zoomIn(),
      "=": () => this.zoomIn(),
      "-": () => this.zoomOut(),
      0: () => this.fit(),
      1: () => this.zoom(this.unit / this.view.scale),
      Escape: () => this.lookAway(),
    };
    if (arrows[event.key]) this.stepPoint(...arrows[event.key], event.shiftKey);
    else if (others[event.key]) others[event.key]();
    else return;
    event.preventDefault();
  }

  stepPoint(dx, dy, fine) {
    const step = fine ? 1 : Math.max(1, Math.round((16 * this.unit) / this.view.scale));
    const { width, height } = this.size;
    const from = this.point ?? this.toPicture(this.wide / 2, this.tall / 2);
    const keep = (value, size) => Math.max(0, Math.min(size - 1, Math.floor(value)));
    this.point = this.point ? { x: keep(from.x + dx * step, width), y: keep(from.y + dy * step, height) }
      : { x: keep(from.x, width), y: keep(from.y, height) };
    const { x, y } = this.toCanvas(this.point.x, this.point.y);
    const aside = (value, room) => (value < 24 ? value - 24 : value > room - 24 ? value - room + 24 : 0);
    const per = this.unit / this.view.scale;
    this.set(this.view.scale, this.view.x + aside(x, this.wide) * per, this.view.y + aside(y, this.tall) * per);
    this.look(this.point, "keys");
  }
}
