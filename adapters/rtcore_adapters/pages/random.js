/** A text that nobody can guess, drawn from so many words of 32 bits. */
export function random(words) {
  return Array.from(crypto.getRandomValues(new Uint32Array(words)), (word) => word.toString(36)).join("");
}
