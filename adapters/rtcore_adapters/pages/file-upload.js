// A file sent to the server by POST /binary/upload, with its progress, which fetch does not tell. This module needs no
// other: copy it.

/**
 * Why a file was not sent: `code` in snake_case, `message` for people, `status` of HTTP, or 0 where there was no answer.
 * "aborted": `signal` said so.
 */
export class UploadError extends Error {
  constructor(code, message, status = 0) {
    super(message);
    this.code = code;
    this.status = status;
  }
}

/**
 * Send `file`, a File, to `url`, .../binary/upload?channel=NAME or ?user_id=NAME; `headers` say who we are.
 *
 * `onProgress` is called with (sent, total), in bytes of the request, of which the file is nearly all; the last time with
 * both the same, when the server has yet to answer. `signal`, of an AbortController, stops it, and then nothing is kept.
 * Resolves to what the server tells of the file, {file_id, url, size, sha256, …}, once that is kept and published; rejects
 * with an UploadError.
 */
export function uploadFile(url, file, { headers = {}, onProgress = () => {}, signal } = {}) {
  return new Promise((resolve, reject) => {
    const fail = (...why) => reject(new UploadError(...why));
    const request = new XMLHttpRequest();
    const abort = () => request.abort();
    request.open("POST", url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = ({ loaded, total }) => onProgress(loaded, total);
    request.onload = () => {
      const { status } = request;
      const { files, error } = parse(request.responseText);
      if (status === 200 && files?.length === 1) resolve(files[0]);
      else fail(error?.code ?? "http_error", error?.message ?? `The server answered ${status}.`, status);
    };
    request.onerror = () => fail("no_answer", "The connection broke, or the file cannot be read.");
    request.onabort = () => fail("aborted", "It was cancelled.");
    request.onloadend = () => signal?.removeEventListener("abort", abort);
    if (signal?.aborted) {
      fail("aborted", "It was cancelled.");
      return;
    }
    signal?.addEventListener("abort", abort);
    const form = new FormData();
    form.append("file", file, file.name);
    request.send(form);
  });
}

function parse(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}
