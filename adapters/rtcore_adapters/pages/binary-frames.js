// A file within one message, as the payload of a WebSocket binary frame: four bytes with the length of the head,
// big-endian; the head, a JSON object with a `type`, in UTF-8; then the bytes of the file. This module needs no other:
// copy it. The socket that such frames come by has `binaryType = "arraybuffer"`.

const LENGTH_SIZE = 4;

/**
 * The payload of a binary frame, a Uint8Array: `head`, such as {type: "binary", channel, content_type, filename}, and
 * `data`, an ArrayBuffer or a view of one.
 */
export function encodeFrame(head, data) {
  const text = new TextEncoder().encode(JSON.stringify(head));
  const payload = new Uint8Array(LENGTH_SIZE + text.length + data.byteLength);
  new DataView(payload.buffer).setUint32(0, text.length);
  payload.set(text, LENGTH_SIZE);
  payload.set(ArrayBuffer.isView(data) ? new Uint8Array(data.buffer, data.byteOffset, data.byteLength) : new Uint8Array(data), LENGTH_SIZE + text.length);
  return payload;
}

/**
 * Read the payload of a binary frame, an ArrayBuffer: {text, message}. `text` is the head as it came, and `message` what
 * it says with the file in it as `data`, a Uint8Array. Throws an Error where it is malformed.
 */
export function decodeFrame(payload) {
  if (payload.byteLength < LENGTH_SIZE) throw new Error("A binary frame ends before the length of its head.");
  const end = LENGTH_SIZE + new DataView(payload).getUint32(0);
  if (end > payload.byteLength) throw new Error("A binary frame ends before its head does.");
  const text = new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array(payload, LENGTH_SIZE, end - LENGTH_SIZE));
  const head = JSON.parse(text);
  if (typeof head?.type !== "string") throw new Error("The head of a binary frame has no type.");
  return { text, message: { ...head, data: new Uint8Array(payload, end) } };
}
