// Files that are dropped onto the page, chosen or pasted, each on its way to where the page writes to at that moment.

import { byId, element } from "./dom.js";
import { endpoint } from "./endpoints.js";
import { uploadFile, UploadError } from "./file-upload.js";
import { sizeText } from "./files.js";

// A browser has six connections to a server, which pictures and event streams are to have some of.
const AT_ONCE = 2;
const DONE_SHOWN_FOR = 6;
// The files of which what the server publishes may be still to come.
const REMEMBERED = 50;

export class FilePanel {
  #target;
  #credentials;
  #echo;
  #sent;
  #inWords;
  #waiting = [];
  // {channel, size, fileId} of what was sent; `fileId` once the server has told it.
  #ours = [];
  #sending = 0;

  /**
   * - `target`: a function that returns where files go now: {label, query, channel}, `label` for people, `query` a list of
   *   [name, value]; without a `query` they go to `echo`; or null while they can go nowhere.
   * - `credentials`: a function that returns what we are known by.
   * - `echo`: an async function that is given each file for which there is nobody.
   * - `sent`: a function that is called with each file that was sent, its target, and what the server said of it.
   * - `inWords`: a function that returns an error as people are told it.
   */
  constructor({ target, credentials, echo, sent, inWords }) {
    this.#target = target;
    this.#credentials = credentials;
    this.#echo = echo;
    this.#sent = sent;
    this.#inWords = inWords;
    byId("attach").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", ({ target: input }) => {
      this.send([...input.files]);
      // The same file may be chosen again.
      input.value = "";
    });
    document.addEventListener("paste", (event) => {
      const { files, types } = event.clipboardData;
      // Of what is text and a picture of that text, as cells of a table are, the text is meant.
      if (!files.length || types.includes("text/plain")) return;
      event.preventDefault();
      this.send([...files]);
    });
    for (const name of ["dragenter", "dragover"]) {
      document.addEventListener(name, (event) => {
        if (!event.dataTransfer.types.includes("Files")) return;
        // Otherwise the browser would leave the page for the file.
        event.preventDefault();
        const target = this.#target();
        event.dataTransfer.dropEffect = target ? "copy" : "none";
        byId("drop-text").textContent = target ? `Send to ${target.label}` : "Connect first";
        byId("drop").hidden = false;
      });
    }
    document.addEventListener("dragleave", ({ relatedTarget }) => {
      if (relatedTarget === null) byId("drop").hidden = true;
    });
    document.addEventListener("drop", (event) => {
      byId("drop").hidden = true;
      const { files, items, types } = event.dataTransfer;
      if (!types.includes("Files")) return;
      event.preventDefault();
      // A folder is among the files too, and cannot be read as one.
      const entries = [...items].filter(({ kind }) => kind === "file").map((item) => item.webkitGetAsEntry());
      this.send([...files], (index) => Boolean(entries[index]?.isDirectory));
    });
  }

  /** Send files; `isFolder` tells of an index whether that is none. */
  send(files, isFolder = () => false) {
    const target = this.#target();
    files.forEach((file, index) => {
      const row = new Row(file, target);
      if (!target) row.fail("There is no connection at the moment.");
      else if (isFolder(index)) row.fail("A folder cannot be sent: choose the files in it.");
      else this.#enqueue(row);
    });
  }

  /** Whether a message is a file that was sent here: requests bring no name of somebody anonymous. */
  isOurs({ type, channel, size, file_id: fileId }) {
    if (type !== "binary") return false;
    return this.#ours.some((our) => our.channel === channel && (our.fileId ?? fileId) === fileId && our.size === size);
  }

  #enqueue(row) {
    row.begin({
      cancel: () => (this.#waiting = this.#waiting.filter((other) => other !== row)),
      again: () => this.#enqueue(row),
    });
    this.#waiting.push(row);
    this.#next();
  }

  #next() {
    while (this.#sending < AT_ONCE && this.#waiting.length) {
      this.#sending += 1;
      this.#transfer(this.#waiting.shift()).finally(() => {
        this.#sending -= 1;
        this.#next();
      });
    }
  }

  async #transfer(row) {
    const { file, target, signal } = row;
    const our = { channel: target.channel, size: file.size, fileId: undefined };
    try {
      if (target.query) {
        this.#ours.push(our);
        if (this.#ours.length > REMEMBERED) this.#ours.shift();
        const answer = await this.#upload(row);
        our.fileId = answer.file_id;
        this.#sent(file, target, answer);
      } else await this.#echo(file);
      row.done();
    } catch (error) {
      this.#ours = this.#ours.filter((other) => other !== our);
      if (!signal.aborted) row.fail(this.#inWords(error));
    }
  }

  async #upload(row) {
    const { file, target, signal } = row;
    const credentials = this.#credentials();
    const url = endpoint("binary/upload", target.query);
    const onProgress = (sent, total) => row.progress(sent, total);
    try {
      return await uploadFile(url, file, { headers: await credentials.headers(), onProgress, signal });
    } catch (error) {
      if (!(error instanceof UploadError) || error.status !== 401 || !credentials.refreshes) throw error;
      return uploadFile(url, file, { headers: await credentials.headers({ fresh: true }), onProgress, signal });
    }
  }
}

/** What is shown of one file: "waiting" -> "sending" -> "done" or "failed", and again. */
class Row {
  #cancelling = null;
  #cancel = () => {};
  #again = () => {};
  #bar = element("progress", { max: 1, value: 0 });
  #status = element("span", { class: "upload-status", role: "status" });
  #retry = element("button", { type: "button", class: "quiet", hidden: true }, "Try again");
  #item;

  constructor(file, target) {
    this.file = file;
    this.target = target;
    this.#bar.setAttribute("aria-label", file.name);
    const stop = element("button", { type: "button", class: "quiet icon", "aria-label": `Cancel ${file.name}` }, "×");
    stop.addEventListener("click", () => this.#remove());
    this.#retry.addEventListener("click", () => this.#again());
    const name = element("span", { class: "upload-name", title: file.name }, file.name);
    this.#item = element("li", { class: "upload", "data-testid": "upload" }, name, this.#status, this.#bar, this.#retry, stop);
    byId("uploads").append(this.#item);
  }

  get signal() {
    return this.#cancelling.signal;
  }

  begin({ cancel, again }) {
    this.#cancelling = new AbortController();
    this.#cancel = cancel;
    this.#again = again;
    this.#retry.hidden = true;
    this.#bar.value = 0;
    this.#show("waiting", `${sizeText(this.file.size)}, waiting`);
  }

  progress(sent, total) {
    this.#bar.value = total ? sent / total : 0;
    this.#show("sending", sent < total ? `${Math.floor((100 * sent) / total)} % of ${sizeText(this.file.size)}` : "being stored");
  }

  done() {
    this.#cancelling = null;
    this.#bar.value = 1;
    this.#show("done", `sent, ${sizeText(this.file.size)}`);
    setTimeout(() => this.#item.remove(), DONE_SHOWN_FOR * 1000);
  }

  fail(why) {
    this.#retry.hidden = this.#cancelling === null;
    this.#cancelling = null;
    this.#show("failed", why);
  }

  #remove() {
    this.#cancel();
    this.#cancelling?.abort();
    this.#item.remove();
  }

  #show(state, text) {
    this.#item.dataset.state = state;
    this.#status.textContent = text;
  }
}
