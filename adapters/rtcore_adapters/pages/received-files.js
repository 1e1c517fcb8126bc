// A file that another peer sends over a data channel of its own, by the protocol "rtcore.file": what it is (a JSON text),
// the file in pieces, its SHA-256 (another text); then we say that we have it, and the channel ends.

export const FILE_PROTOCOL = "rtcore.file";
// It is kept in memory until somebody saves it.
const MAX_SIZE = 64 * 1024 * 1024;

/** Receive the file that comes by `channel`: {name, blob}. Rejects with an Error, for people, if it does not come whole. */
export function receiveFile(channel) {
  channel.binaryType = "arraybuffer";
  return new Promise((resolve, reject) => {
    let head = null;
    let size = 0;
    const pieces = [];
    const fail = (why) => {
      channel.close();
      reject(new Error(why));
    };
    channel.addEventListener("close", () => reject(new Error("It was cut off.")));
    channel.addEventListener("message", async ({ data }) => {
      if (typeof data !== "string") {
        size += data.byteLength;
        pieces.push(data);
        if (!head || size > head.size) fail("It is not what was announced.");
        return;
      }
      const said = parse(data);
      if (!head) {
        head = { name: String(said.name ?? "file"), size: Number(said.size) };
        if (!(head.size >= 0 && head.size <= MAX_SIZE)) fail("It is too large for a page.");
        return;
      }
      const blob = new Blob(pieces);
      const digest = hexadecimal(await crypto.subtle.digest("SHA-256", await blob.arrayBuffer()));
      if (size !== head.size || said.sha256 !== digest) {
        fail("It is not what was announced.");
        return;
      }
      // The sender closes the channel when it has heard that.
      if (channel.readyState === "open") channel.send(JSON.stringify({ received: digest }));
      resolve({ name: head.name, blob });
    });
  });
}

function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

function hexadecimal(buffer) {
  return Array.from(new Uint8Array(buffer), (each) => each.toString(16).padStart(2, "0")).join("");
}
