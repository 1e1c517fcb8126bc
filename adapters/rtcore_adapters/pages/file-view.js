// A file that was received, as a part of the page: a picture or a player, and a link to save it by.

import { element } from "./dom.js";
import { sizeText, urlOfBytes } from "./files.js";

const TAGS = { image: "img", audio: "audio", video: "video" };

/**
 * Show a file, as `fileOf` returns it. `address` is an async function that adds what the server knows us by to a URL, as a
 * text; where it is called with {fresh: true}, the last one was perhaps not accepted.
 */
export function fileView({ kind, ...file }, address) {
  const figure = element("figure", { class: "file", "data-testid": "file" });
  const here = file.bytes ? urlOfBytes({ kind, ...file }) : null;
  if (here?.revoke) figure.dataset.revoke = here.url;
  if (kind) figure.append(media(kind, file, here, address));
  const link = element("a", { class: "file-name", href: here?.url ?? file.url.href, download: file.name }, file.name);
  if (!here) link.addEventListener("click", (event) => save(event, file, address));
  figure.append(element("figcaption", {}, link, file.size === null ? "" : element("span", { class: "hint" }, sizeText(file.size))));
  return figure;
}

/** Let the browser forget what is in files, once they are no longer in `list`. */
export function releaseRemoved(list) {
  const observer = new MutationObserver((changes) => {
    for (const { removedNodes } of changes) {
      for (const node of removedNodes) {
        for (const figure of node.querySelectorAll?.("[data-revoke]") ?? []) URL.revokeObjectURL(figure.dataset.revoke);
      }
    }
  });
  observer.observe(list, { childList: true });
}

function media(kind, { name, url }, here, address) {
  const node = element(TAGS[kind], { class: "file-media", ...(kind === "image" ? { alt: name } : { controls: true, preload: "metadata", "aria-label": name }) });
  let tries = 0;
  const load = async () => {
    const at = node.currentTime;
    const source = here?.url ?? (await address(url, { fresh: tries > 0 }).catch(() => null));
    tries += 1;
    if (source === null) return;
    node.src = source;
    // A player whose credential ends while it plays goes on where it was.
    if (at) node.currentTime = at;
  };
  node.addEventListener("error", () => {
    if (here === null && tries < 2) {
      load();
      return;
    }
    // It is no longer there, it is not for us, or this browser cannot show what is in it.
    node.replaceWith(element("p", { class: "hint" }, "It cannot be shown here."));
  });
  load();
  return node;
}

// A link can have no header, and one that has a credential in its address is not to be copied by people.
async function save(event, { name, url }, address) {
  event.preventDefault();
  const href = await address(url, { fresh: true }).catch(() => url.href);
  element("a", { href, download: name }).click();
}
