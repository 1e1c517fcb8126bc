// Notifications in the corner of the page.

import { element, readable } from "./dom.js";

const TYPES = ["info", "success", "warning", "error"];
const DEFAULT_DURATION = 6000;
const MOST_AT_ONCE = 5;

/**
 * Show a notification. `auto_hide: false` keeps it until it is dismissed; `duration` is in milliseconds.
 * One that somebody points at or tabs into stays while they do.
 */
export function toast({ title, content, type = "info", auto_hide: autoHide = true, duration } = {}) {
  const kind = TYPES.includes(type) ? type : "info";
  const text = element("div", { class: "toast-text" });
  if (title) text.append(element("strong", {}, readable(title)));
  if (content !== undefined && content !== null && content !== "") text.append(element("p", {}, readable(content)));
  const dismiss = element("button", { type: "button", class: "quiet icon", "aria-label": "Dismiss" }, "×");
  const role = kind === "error" || kind === "warning" ? "alert" : "status";
  const node = element("li", { class: "toast", "data-type": kind, "data-testid": "toast", role }, text, dismiss);

  let timer = 0;
  const hold = () => clearTimeout(timer);
  const letGo = () => {
    hold();
    if (autoHide) timer = setTimeout(remove, duration > 0 ? duration : DEFAULT_DURATION);
  };
  const remove = () => {
    hold();
    node.remove();
  };
  dismiss.addEventListener("click", remove);
  for (const name of ["pointerenter", "focusin"]) node.addEventListener(name, hold);
  for (const name of ["pointerleave", "focusout"]) node.addEventListener(name, letGo);

  const list = document.getElementById("toasts");
  list.append(node);
  if (list.childElementCount > MOST_AT_ONCE) list.firstElementChild.remove();
  letGo();
}
