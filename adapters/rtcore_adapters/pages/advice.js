// What can be done about a refusal, in plain words, beside what the server says of it.

import { UNAUTHORIZED } from "./reconnection.js";

const FORBIDDEN = 4403;
const NOT_KNOWN = new Set([
  "unauthorized", "authentication_timeout", "invalid_token", "invalid_api_key", "token_expired", "token_revoked",
]);
const isUnknown = (code) => code === 401 || code === UNAUTHORIZED || NOT_KNOWN.has(code);

/**
 * What to do, or "" where there is nothing to add. `code` is a close code, a status of HTTP, or a code in snake_case;
 * `given` is what we have come with: {token}, {apiKey} or {}.
 */
export function advice(code, { token, apiKey } = {}) {
  if (isUnknown(code)) {
    if (apiKey) return "Enter another API key; if this is a token, choose “Token” before it.";
    if (token) return "Enter another token; if this is an API key, choose “API key” before it.";
    return "Enter a token or an API key.";
  }
  if (code === "user_mismatch") return "Disconnect, and connect with it anew.";
  if (code === 403 || code === FORBIDDEN) return "Ask whoever runs the server whom it lets in.";
  return "";
}

/** What the server says of a refusal, but for those whom it does not know and who have come with nothing. */
export function reasonOf(code, message, { token, apiKey } = {}) {
  return isUnknown(code) && !token && !apiKey ? "the server wants to know who you are" : message;
}

/** An error of the server as people are told it. */
export function inWords({ code, message }, given) {
  const [said, todo] = [reasonOf(code, message, given), advice(code, given)];
  return todo ? `${sentence(said)} ${todo}` : said;
}

/** `text` as a sentence: with a capital, and a full stop. */
export function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}`;
}
