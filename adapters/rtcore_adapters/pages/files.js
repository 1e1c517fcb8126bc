// The files in messages of type "binary", in each form that they come in: with the bytes in `data` (from a binary frame,
// see binary-frames.js), as base64 in `binary_data` (from an event stream or a history), or at a `url`. What somebody has
// sent is never to run as a part of this page: see `kind` and `blob`. This module needs no other: copy it.

// What a page can show and what runs nothing, wherever it is opened. XML of any kind may have scripts in it.
const SHOWN = /^(image|audio|video)\/(?!.*xml)[\w.+-]+$/;
const SVG = "image/svg+xml";
const ANYTHING = "application/octet-stream";

/**
 * The file in a message, or null:
 * - `name`: what it is called, without folders; `size`: its bytes, or null; `type`: its media type, without parameters.
 * - `kind`: "image", "audio" or "video" where an element called so (img for the first) may show it; otherwise "".
 * - `bytes`: a Uint8Array, or null where they are at `url` only.
 * - `url`: a URL on the server that this page is from, or null. It may want a credential.
 */
export function fileOf(message, { base = location.href } = {}) {
  if (message?.type !== "binary") return null;
  const bytes = bytesOf(message);
  const url = urlOf(message.url, base);
  if (!bytes && !url) return null;
  const type = String(message.content_type ?? ANYTHING).split(";")[0].trim().toLowerCase();
  const size = bytes ? bytes.byteLength : Number.isSafeInteger(message.size) ? message.size : null;
  const kind = SHOWN.test(type) ? type.split("/")[0] : type === SVG ? "image" : "";
  return { name: nameOf(message.filename), size, type, kind, bytes, url };
}

/**
 * A URL of the bytes of a file that are here, and whether it must be given to `URL.revokeObjectURL` in the end.
 *
 * What is at a blob: URL belongs to the origin of this page, also where somebody opens it in another tab. So it has a
 * media type of its own only if nothing of that type can run. An SVG may have scripts, which an img does not run; it gets
 * a data: URL, which browsers open nowhere else.
 */
export function urlOfBytes({ bytes, type, kind }) {
  if (type === SVG) return { url: `data:${SVG};base64,${base64(bytes)}`, revoke: false };
  const blob = new Blob([bytes], { type: kind ? type : ANYTHING });
  return { url: URL.createObjectURL(blob), revoke: true };
}

/** How large that is, for people. */
export function sizeText(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  const power = Math.min(4, Math.floor(Math.log10(bytes) / 3));
  const value = bytes / 1000 ** power;
  return `${value < 10 ? Math.floor(value * 10) / 10 : Math.floor(value)} ${" kMGT"[power]}B`;
}

/** The text of a message without most of the base64 in it, for people to see. */
export function abridged(text) {
  return text.replace(/("binary_data"\s*:\s*")([\w+/=]{40})[\w+/=]+"/g, '$1$2…"');
}

function bytesOf({ data, binary_data: encoded }) {
  if (data instanceof Uint8Array) return data;
  if (typeof encoded !== "string") return null;
  try {
    return Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  } catch {
    return null;
  }
}

// Anywhere else it is no file of the server, and what we are known by there is nobody else's business.
function urlOf(reference, base) {
  if (typeof reference !== "string") return null;
  const url = URL.canParse(reference, base) ? new URL(reference, base) : null;
  return url?.origin === new URL(base).origin ? url : null;
}

function nameOf(filename) {
  const name = typeof filename === "string" ? filename.split(/[\\/]/).at(-1) : "";
  return name || "file";
}

function base64(bytes) {
  let text = "";
  for (let at = 0; at < bytes.length; at += 4096) text += String.fromCharCode(...bytes.subarray(at, at + 4096));
  return btoa(text);
}
