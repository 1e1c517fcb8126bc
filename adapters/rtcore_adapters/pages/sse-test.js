// The Server-Sent Events page: a stream and its log on one side, the HTTP API that fills it on the other.

import { advice, inWords, reasonOf, sentence } from "./advice.js";
import { CredentialField } from "./credential-field.js";
import { Credentials } from "./credentials.js";
import { byId, element } from "./dom.js";
import { endpoint } from "./endpoints.js";
import { errorOf, EventStream, messageOf } from "./event-stream.js";
import { fileView, releaseRemoved } from "./file-view.js";
import { abridged, fileOf } from "./files.js";
import { Log } from "./log.js";
import { UNAUTHORIZED } from "./reconnection.js";
import { toast } from "./toasts.js";

const credential = new CredentialField();
const stream = new EventStream();
const log = new Log("events");
releaseRemoved(byId("events"));

const listOf = (text) => [...new Set(text.split(/[\s,]+/).filter(Boolean))];
const valueOf = (id) => byId(id).value.trim();

// ---- The stream ----

const STATE_TEXT = {
  closed: "Disconnected",
  connecting: "Connecting",
  open: "Connected",
  waiting: "Reconnecting",
};
const SETTINGS = ["channels", "name"];
let countdown = 0;
let received = 0;
let gaps = 0;
let lastId = "";

function connect() {
  for (const name of listOf(byId("event-names").value)) stream.listen(name);
  received = 0;
  gaps = 0;
  lastId = "";
  byId("gap-count").textContent = "0";
  byId("event-count").textContent = "0";
  byId("last-event-id").textContent = "–";
  const { given } = credential;
  credential.begin(given);
  const channels = listOf(byId("channels").value).map((channel) => ["channel", channel]);
  stream.open([...channels, ["user_id", valueOf("name")]], given);
}

byId("connection").addEventListener("submit", (event) => {
  event.preventDefault();
  if (stream.state === "closed") connect();
  else stream.close();
});

credential.addEventListener("use", ({ detail: given }) => {
  credential.begin(given);
  stream.renew(given);
});
stream.addEventListener("expires", ({ detail: { at } }) => credential.expires(at));
stream.addEventListener("not-renewed", ({ detail: { error } }) => credential.notRenewed(error));

byId("event-names").addEventListener("change", () => {
  for (const name of listOf(byId("event-names").value)) stream.listen(name);
  remember();
});

stream.addEventListener("state", ({ detail: { state, code, reason = "", retryAt } }) => {
  byId("state").dataset.state = state;
  byId("state-text").textContent = STATE_TEXT[state];
  byId("connect").textContent = state === "closed" ? "Connect" : "Disconnect";
  byId("connect").classList.toggle("primary", state === "closed");
  byId("retries").textContent = String(stream.retries);
  for (const id of SETTINGS) byId(id).disabled = state !== "closed";
  if (state !== "connecting") {
    const todo = state === "closed" ? advice(code, credential.used) : "";
    byId("state-reason").textContent = todo ? `${sentence(reasonOf(code, reason, credential.used))} ${todo}` : reason;
    byId("state-reason").hidden = !reason;
  }
  credential.showState(state, { refused: code === 401 || code === UNAUTHORIZED });
  clearInterval(countdown);
  byId("countdown").textContent = "";
  if (retryAt) {
    const show = () => {
      byId("countdown").textContent = `in ${Math.max(0, Math.ceil((retryAt - Date.now()) / 1000))} s`;
    };
    show();
    countdown = setInterval(show, 250);
  }
  remember();
});

stream.addEventListener("event", ({ detail: { name, id, data } }) => {
  received += 1;
  byId("event-count").textContent = String(received);
  byId("last-event-id").textContent = id || "–";
  // A browser repeats the last id on events that have none of their own.
  const ownId = id === lastId ? "" : id;
  lastId = id;
  const message = messageOf(data);
  const file = fileOf(message);
  log.add({
    attributes: { class: "event", "data-event": name, "data-id": ownId || null },
    badges: [element("span", { class: "kind" }, name), element("span", { class: "event-id", title: ownId }, ownId)],
    text: abridged(data),
    search: name,
    view: file && (() => fileView(file, (url, how) => stream.credentials.address(url, how))),
  });
  if (name === "gap") byId("gap-count").textContent = String((gaps += 1));
  if (name === "notification") toast(message.data ?? message);
  else if (name === "error") complain(sentence(message.code.replaceAll("_", " ")), message);
  else if (name === "unsubscribed") removed(message);
});

function complain(title, error) {
  toast({ title, content: inWords(error, credential.used), type: "error" });
}

// The stream does not ask for it again, and neither does a reload.
function removed({ channel, code, reason }) {
  byId("channels").value = listOf(byId("channels").value).filter((each) => each !== channel).join(", ");
  complain(`Taken out of ${channel}`, { code, message: reason });
  remember();
}

// ---- The composer ----

// As whom messages are sent; while it is the same, its last token will do.
let sender = { given: {}, credentials: new Credentials() };

function send(url, init) {
  const { given } = credential;
  if (sender.given.token !== given.token || sender.given.apiKey !== given.apiKey) {
    sender = { given, credentials: new Credentials(given) };
  }
  return sender.credentials.fetch(url, init);
}

// A payload that is a JSON object is sent as it is; anything else is text.
function payloadOf(text) {
  try {
    const value = JSON.parse(text);
    if (value !== null && typeof value === "object" && !Array.isArray(value)) return value;
  } catch {
    // Text, then.
  }
  return { message: text };
}

function notification() {
  return {
    title: valueOf("notify-title"),
    content: byId("send-message").value,
    type: valueOf("notify-type"),
    auto_hide: byId("notify-auto-hide").checked,
    duration: Number(valueOf("notify-duration")) || 6000,
  };
}

function message() {
  const named = valueOf("send-event");
  return { ...payloadOf(byId("send-message").value), ...(named ? { event: named } : {}) };
}

// kind -> [path, body]
const REQUESTS = {
  channel: () => ["send", { ...message(), channel: valueOf("send-channel") }],
  user: () => ["send", { ...message(), user_id: valueOf("send-user") }],
  broadcast: () => ["broadcast", message()],
  "notify-channel": () => ["notifications/channel", { ...notification(), channel: valueOf("send-channel") }],
  "notify-user": () => ["notifications/send", { ...notification(), user_id: valueOf("send-user") }],
  "notify-broadcast": () => ["notifications/broadcast", notification()],
};

function showKind() {
  const kind = byId("send-kind").value;
  for (const part of document.querySelectorAll("[data-for]")) part.hidden = !part.dataset.for.split(" ").includes(kind);
}

function showResult(ok, status, text) {
  const line = element("p", { class: "result-head" }, ok ? "Sent" : "Not sent", element("span", { class: "tag" }, status));
  byId("send-result").replaceChildren(line, element("pre", { tabindex: "0" }, text));
  byId("send-result").dataset.ok = String(ok);
  byId("send-result").hidden = false;
}

byId("send-kind").addEventListener("change", showKind);
byId("send-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const [path, body] = REQUESTS[byId("send-kind").value]();
  byId("send").disabled = true;
  try {
    const response = await send(endpoint(path), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    if (response.ok) {
      showResult(true, `${response.status}`, JSON.stringify(await response.json(), null, 2));
    } else {
      const { code, message: why } = await errorOf(response);
      showResult(false, `${response.status} ${code}`, inWords({ code, message: why }, sender.given));
    }
  } catch (error) {
    showResult(false, "no reply", error.message);
  } finally {
    byId("send").disabled = false;
  }
});

byId("send-message").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.isComposing || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  byId("send-form").requestSubmit();
});

// ---- The address of the page holds what was typed, so that it can be reloaded, bookmarked and shared ----

function remember() {
  const query = new URLSearchParams();
  for (const channel of listOf(byId("channels").value)) query.append("channel", channel);
  for (const name of listOf(byId("event-names").value)) query.append("event", name);
  if (valueOf("name")) query.set("user_id", valueOf("name"));
  // A reload forgets what was entered, so it could not connect as whoever that was.
  if (stream.state !== "closed" && !credential.filled) query.set("connect", "1");
  const text = query.toString();
  try {
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
  } catch {
    // Browsers limit how often an address may change; the next change will tell.
  }
}

for (const id of ["channels", "name"]) byId(id).addEventListener("change", remember);

const preset = new URLSearchParams(location.search);
const presets = {
  channels: preset.getAll("channel").join(", "),
  "event-names": preset.getAll("event").join(", "),
  name: preset.get("user_id"),
  "send-channel": preset.get("channel"),
};
// Where there is none, somebody may have typed while this script was on its way.
for (const [id, value] of Object.entries(presets)) if (value) byId(id).value = value;
showKind();
if (preset.get("connect") === "1") connect();
else remember();
