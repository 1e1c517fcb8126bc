// The addresses of the server.

/** The address of `path` on the server that this module is from, whatever the prefix there, and whatever page loads it. */
export function endpoint(path, query = []) {
  const url = new URL(path, new URL("..", import.meta.url));
  for (const [name, value] of query) if (value !== "") url.searchParams.append(name, value);
  return url;
}

/** The same for a WebSocket: ws: beside http:, wss: beside https:. */
export function socketEndpoint(path, query = []) {
  const url = endpoint(path, query);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  return url;
}
