// Errors in place, in words, with what can be done about them.

import { advice } from "./api.js";
import { make } from "./panel.js";

const LONGEST_WAIT = 120; // seconds; a server that asks for more is better asked by hand

/** The one place where errors are shown. choose() opens the file chooser. */
export class Notice {
  constructor(box, keyForm, choose) {
    Object.assign(this, { box, keyForm, choose, timer: 0 });
  }

  /** Shows a ServiceError; again() repeats what failed, smaller() sends less, each if it can. Returns its title. */
  show(error, limits, { again = null, smaller = null }) {
    const { title, help, action } = advice(error, limits);
    const parts = [make("p", { className: "notice-title" }, title), make("p", {}, help)];
    if (error.message) parts.push(make("p", { className: "muted small" }, `The reason given: ${error.message}`));
    if (error.requestId) parts.push(make("p", { className: "muted small" }, `Request ${error.requestId}`));
    const buttons = [];
    if (action === "retry" && again) buttons.push(this.retryButton(error.retryAfter, again));
    if (action === "smaller" && smaller) buttons.push(button("Use a smaller copy", smaller, "primary"));
    if (["smaller", "choose"].includes(action)) buttons.push(button("Choose a picture", this.choose));
    if (buttons.length) parts.push(make("div", { className: "row" }, ...buttons));
    this.box.replaceChildren(...parts);
    this.box.dataset.status = String(error.status);
    this.box.hidden = false;
    this.keyForm.hidden = action !== "key";
    if (action === "key") this.keyForm.querySelector("input").focus();
    return title;
  }

  clear() {
    clearTimeout(this.timer);
    this.box.hidden = true;
    this.box.replaceChildren();
    this.keyForm.hidden = true;
  }

  /** Cannot be pressed before the server's Retry-After has passed. */
  retryButton(seconds, again) {
    const retry = button("Try again", again, "primary");
    const tick = (left) => {
      retry.disabled = left > 0;
      retry.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
      if (left > 0) this.timer = setTimeout(tick, 1000, left - 1);
    };
    clearTimeout(this.timer);
    tick(Math.min(seconds ?? 0, LONGEST_WAIT));
    return retry;
  }
}

const button = (text, press, className = "") => make("button", { type: "button", className, on: { click: () => press() } }, text);
