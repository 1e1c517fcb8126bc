// The few things that every panel of the pages does with the document.

export const byId = (id) => document.getElementById(id);

/**
 * Build an element. Children that are strings become text nodes, so nothing that a peer says is ever parsed as HTML.
 * An attribute that is null, undefined or false is left out; true gives the bare attribute.
 */
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children);
  return node;
}

/** A value for people: text as it is, anything else as indented JSON. */
export function readable(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2) ?? "";
}

/** The JSON in `text`, indented; `text` itself where it is not JSON. */
export function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

const shortTime = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const exactTime = new Intl.DateTimeFormat(undefined, {
  hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3, hour12: false,
});

/** A `time` element for milliseconds since 1970, with or without the seconds. */
export function timeElement(milliseconds, { exact = false } = {}) {
  const at = new Date(milliseconds);
  const known = !Number.isNaN(at.getTime());
  const attributes = known ? { datetime: at.toISOString(), title: at.toLocaleString() } : {};
  return element("time", attributes, known ? (exact ? exactTime : shortTime).format(at) : "?");
}

/** A round badge with the first letter of `name`, coloured by the name so that it is the same everywhere. */
export function avatar(name) {
  let hue = 7;
  for (const character of name) hue = (hue * 31 + character.codePointAt(0)) % 360;
  const [first = "?"] = name.trim();
  const badge = element("span", { class: "avatar", "aria-hidden": "true" }, first.toUpperCase());
  badge.style.setProperty("--hue", String(hue));
  return badge;
}

/** How a member or sender is called: the user id, or a short form of the connection id for the anonymous. */
export function displayName({ user_id: userId, connection_id: connectionId }) {
  if (userId !== null && userId !== undefined) return String(userId);
  return connectionId ? `anonymous ${String(connectionId).slice(0, 6)}` : "server";
}

/** Take the oldest children away until `limit` are left. */
export function bound(list, limit) {
  while (list.childElementCount > limit) list.firstElementChild.remove();
}
