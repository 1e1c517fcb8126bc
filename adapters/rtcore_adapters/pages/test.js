// The WebSocket page: what the connection says goes to the panels, what the controls say goes to the connection.

import { advice, inWords, reasonOf, sentence } from "./advice.js";
import { encodeFrame } from "./binary-frames.js";
import { CallPanel } from "./call-panel.js";
import { Conversations, DIRECT } from "./conversations.js";
import { CredentialField } from "./credential-field.js";
import { byId, displayName, element, readable } from "./dom.js";
import { FilePanel } from "./file-panel.js";
import { fileView } from "./file-view.js";
import { abridged, fileOf, sizeText } from "./files.js";
import { Log } from "./log.js";
import { Members } from "./members.js";
import { UNAUTHORIZED } from "./reconnection.js";
import { Connection } from "./rtcore.js";
import { ServerPanel } from "./server-panel.js";
import { toast } from "./toasts.js";

const REFRESH_EVERY = 20;
// These are of use to the connection or are shown in the page; nobody said them.
const SILENT_TYPES = new Set(["connected", "disconnect", "heartbeat"]);
// What was said last in a channel is shown on joining, so much of it.
const HISTORY = 50;

// The bytes of a file that the server is asked to echo, as one message; and of one that the sender's page shows from its
// own memory.
const MOST_ECHOED = 64 * 1024;
const MOST_SHOWN = 16 * 1024 * 1024;

// Seconds after which a server that has not let us in is taken to wait for something.
const PATIENCE = 2;

const credential = new CredentialField();
const connection = new Connection();
const frames = new Log("frames");
const conversations = new Conversations({ tabs: byId("tabs"), messages: byId("messages") });
const isMe = (member) =>
  connection.userId === null ? member.connection_id === connection.connectionId : member.user_id === connection.userId;
const members = new Members({
  list: byId("members"),
  heading: byId("members-count"),
  note: byId("members-note"),
  isMe,
  onPick: (userId) => {
    byId("recipient").value = userId;
    conversations.select(DIRECT);
    byId("message").focus();
  },
});

const complain = (title) => (error) => toast({ title, content: inWords(error, credential.used), type: "error" });
const call = new CallPanel(connection, {
  name: () => byId("name").value.trim(),
  connect,
  changed: () => remember(),
});

// ---- Connection ----

const STATE_TEXT = {
  closed: "Disconnected",
  connecting: "Connecting",
  open: "Connected",
  waiting: "Reconnecting",
};
let retryAt = 0;
let countdown = 0;
let patience = 0;

function showPatience() {
  const { token, apiKey } = credential.used;
  if (token || apiKey) return;
  byId("state-reason").textContent = "The server has not let you in yet. If it wants a token or an API key, enter it now.";
  byId("state-reason").hidden = false;
}

function showCountdown() {
  const seconds = Math.max(0, Math.ceil((retryAt - Date.now()) / 1000));
  byId("countdown").textContent = `in ${seconds} s`;
}

function connect() {
  const { given } = credential;
  credential.begin(given);
  connection.open([["user_id", byId("name").value.trim()]], given);
}

byId("connection").addEventListener("submit", (event) => {
  event.preventDefault();
  if (connection.state === "closed") {
    connect();
  } else {
    call.leave();
    connection.close();
  }
});
byId("retry").addEventListener("click", () => connection.retry());

credential.addEventListener("use", ({ detail: given }) => {
  if (connection.state !== "open") credential.begin(given);
  connection
    .renew(given)
    .then(() => credential.begin(given))
    .catch(complain("The token was not taken"));
});
connection.addEventListener("expires", ({ detail: { at } }) => credential.expires(at));
connection.addEventListener("not-renewed", ({ detail: { error } }) => credential.notRenewed(error));

function whyEnded(state, code, reason) {
  if (!code && !reason) return "";
  const { used } = credential;
  const why = `Disconnected: ${reasonOf(code, reason, used) || "the connection was lost"}${code ? ` (code ${code})` : ""}`;
  const todo = advice(code, used);
  return todo && state === "closed" ? `${why}. ${todo}` : why;
}

function whyNameless() {
  const { token, apiKey } = credential.used;
  if (!byId("name").value.trim() || connection.userId !== null || token || apiKey) return "";
  return "The server did not take your name. Start it with REALTIME_ALLOW_ANONYMOUS=true.";
}

connection.addEventListener("state", ({ detail: { state, code, reason, retryAt: at } }) => {
  const open = state === "open";
  byId("state").dataset.state = state;
  byId("state-text").textContent = STATE_TEXT[state];
  byId("connect").textContent = state === "closed" ? "Connect" : "Disconnect";
  byId("connect").classList.toggle("primary", state === "closed");
  byId("retry").hidden = state !== "waiting";
  for (const id of ["send", "attach", "raw-send", "members-refresh", "refresh"]) byId(id).disabled = !open;
  byId("name").disabled = state !== "closed";
  byId("connection-id").textContent = connection.connectionId ?? "–";
  byId("user-id").textContent = open ? connection.userId ?? "anonymous" : "–";

  credential.showState(state, { refused: code === UNAUTHORIZED });

  clearTimeout(patience);
  if (state === "connecting") patience = setTimeout(showPatience, PATIENCE * 1000);
  clearInterval(countdown);
  byId("countdown").textContent = "";
  if (state === "waiting") {
    retryAt = at;
    showCountdown();
    countdown = setInterval(showCountdown, 250);
  }
  if (state !== "connecting") {
    const why = open ? whyNameless() : whyEnded(state, code, reason);
    byId("state-reason").textContent = why;
    byId("state-reason").hidden = !why;
  }
  if (open) {
    refresh();
  } else {
    byId("latency").textContent = "–";
    members.clear();
    for (const channel of connection.channels) conversations.setJoined(channel, false);
  }
  remember();
});

connection.addEventListener("frame", ({ detail: { direction, text, size } }) => {
  let type = "";
  try {
    const { type: said, command } = JSON.parse(text);
    type = String(command ?? said ?? "");
  } catch {
    type = "text";
  }
  frames.add({
    attributes: { class: "frame", "data-direction": direction, "data-type": type },
    badges: [
      element("span", { class: "arrow", "aria-label": direction === "in" ? "received" : "sent" }, direction === "in" ? "↓" : "↑"),
      element("span", { class: "kind" }, type),
      ...(size === undefined ? [] : [element("span", { class: "tag" }, sizeText(size))]),
    ],
    text: abridged(text),
    search: direction,
  });
});

// ---- Channels ----

function join(channel) {
  conversations.add(channel);
  connection.join(channel, { history: HISTORY });
  remember();
}

byId("join-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const channel = byId("channel").value.trim();
  if (!channel) return;
  byId("channel").value = "";
  join(channel);
  conversations.select(channel);
  byId("message").focus();
});

conversations.addEventListener("leave", ({ detail: channel }) => {
  connection.leave(channel);
  conversations.remove(channel);
  members.forget(channel);
  remember();
});

conversations.addEventListener("select", ({ detail: channel }) => {
  const direct = channel === DIRECT;
  byId("talk-title").textContent = direct ? "Direct" : channel;
  byId("talk-hint").textContent = direct ? "What has no channel: echoes, messages to one user, broadcasts" : "";
  byId("recipient-field").hidden = !direct;
  byId("members-title").textContent = direct ? "Online" : "Members";
  byId("message").placeholder = direct ? "Write a message" : `Write to ${channel}`;
  members.select(channel);
  showEmpty();
  if (direct) refreshOnline();
});

connection.addEventListener("history", ({ detail: { publications } }) => {
  // A notification that is old is none.
  for (const message of publications) if (message.type !== "notification") hear(message, { unread: false });
});

connection.addEventListener("joined", ({ detail: { channel, data, again } }) => {
  conversations.setJoined(channel, true);
  if (data.presence) members.set(channel, data.presence);
  else refreshMembers(channel);
  if (data.recovered === true && again) conversations.notice(channel, "Connected again; nothing was missed");
  if (data.recovered === false) conversations.notice(channel, "Some messages were missed while you were away");
  showEmpty();
});

connection.addEventListener("history-refused", ({ detail: { channel, error } }) => {
  conversations.notice(channel, `What was said before is not shown: ${error.message}`);
});

connection.addEventListener("refused", ({ detail: { channel, error, again } }) => {
  if (again) {
    removed(channel, error);
    return;
  }
  conversations.remove(channel);
  members.forget(channel);
  complain(`Could not join ${channel}`)(error);
  remember();
});

// What was said there is still to be read.
function removed(channel, error) {
  conversations.setLeft(channel);
  conversations.notice(channel, `You are not in ${channel} any more: ${error.message}`);
  members.forget(channel);
  complain(`Taken out of ${channel}`)(error);
  remember();
}

// ---- Who is there ----

function refreshMembers(channel) {
  connection
    .command("presence", { channel })
    .then((presence) => members.set(channel, presence))
    .catch((error) => members.refuse(channel, error.message));
}

function refreshOnline() {
  if (connection.state !== "open") return;
  connection
    .command("get_active_users")
    .then(({ users, count }) => {
      const named = (users ?? []).map((userId) => ({ user_id: userId, connection_id: null }));
      members.set(DIRECT, { count, users: named });
      byId("online").replaceChildren(...named.filter((user) => !isMe(user)).map((user) => element("option", { value: user.user_id })));
    })
    // A convenience only: a name can be typed as well.
    .catch((error) => members.refuse(DIRECT, error.message));
}

byId("members-refresh").addEventListener("click", () => {
  if (conversations.selected === DIRECT) refreshOnline();
  else refreshMembers(conversations.selected);
});
byId("recipient").addEventListener("focus", refreshOnline);

// ---- Messages ----

function showEmpty() {
  const channel = conversations.selected;
  const any = [...byId("messages").children].some((item) => item.dataset.channel === channel);
  byId("messages-empty").hidden = any;
  byId("messages-empty").textContent =
    channel === DIRECT
      ? "Send a text and the server sends it back, or choose somebody to write to."
      : "No messages yet. Say something, or open this page in a second window.";
}

function bodyOf(message) {
  const { type, meta, channel, recipient_id, id, echo, ...rest } = message;
  const file = fileOf(message);
  if (!file) return rest.message ?? rest.data ?? rest.text ?? rest;
  const view = fileView(file, (url, how) => connection.credentials.address(url, how));
  if (rest.message === undefined) return view;
  return element("div", {}, view, element("p", { class: "file-text" }, readable(rest.message)));
}

function labelOf({ type, channel, recipient_id: recipient }) {
  if (type === "broadcast") return "to everybody";
  if (recipient !== undefined) return recipient === connection.userId ? "to you" : `to ${recipient}`;
  if (channel) return type === "channel_message" || type === "binary" ? "" : type;
  return type === "text" || type === "binary" ? "echo" : type;
}

function hear(message, { unread = true } = {}) {
  const sender = message.meta?.sender ?? {};
  const echoed = !message.meta && (message.type === "text" || message.type === "binary");
  // An upload comes by no connection, so it has a sender only where the server knows the user.
  const nameless = message.type === "binary" && !echoed && sender.connection_id == null && sender.user_id == null;
  const ours = nameless && files.isOurs(message);
  const own = echoed || ours || (sender.connection_id ?? null) === connection.connectionId || (sender.user_id != null && isMe(sender));
  const me = { user_id: connection.userId, connection_id: connection.connectionId };
  conversations.say(conversations.has(message.channel) ? message.channel : DIRECT, {
    sender: nameless && !ours ? "somebody" : displayName(own ? me : sender),
    own,
    label: labelOf(message),
    body: bodyOf(message),
    at: message.meta?.timestamp ?? Date.now(),
    type: message.type,
    unread,
  });
  showEmpty();
}

function missing({ channel, stream, reason }) {
  if (stream === "presence") refreshMembers(channel);
  else conversations.notice(conversations.has(channel) ? channel : DIRECT, `Something may be missing here (${reason})`);
}

connection.addEventListener("message", ({ detail: message }) => receive(message));

function receive(message) {
  const { type, channel } = message;
  if (call.receive(message)) return;
  if (type === "user_joined") {
    if (members.enter(channel, message) && !isMe(message)) conversations.notice(channel, `${displayName(message)} joined`);
  } else if (type === "user_left") {
    if (members.exit(channel, message)) conversations.notice(channel, `${displayName(message)} left`);
  } else if (type === "notification") {
    toast(message.data ?? message);
  } else if (type === "gap") {
    missing(message);
  } else if (type === "unsubscribed") {
    removed(channel, { code: message.code, message: message.reason });
  } else if (type === "error") {
    complain(sentence(message.code.replaceAll("_", " ")))(message);
  } else if (!SILENT_TYPES.has(type)) {
    hear(message);
  }
}

// Only the recipient hears a direct message, so the sender's side of the conversation is written here.
function hearOwn(recipient, message) {
  if (recipient === connection.userId) return;
  const sender = { connection_id: connection.connectionId, user_id: connection.userId };
  hear({ ...message, recipient_id: recipient, meta: { sender, timestamp: Date.now() } });
}

byId("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const box = byId("message");
  const text = box.value;
  const channel = conversations.selected;
  const recipient = channel === DIRECT ? byId("recipient").value.trim() : "";
  if (!text.trim() || connection.state !== "open") return;
  box.value = "";
  box.focus();
  try {
    if (channel !== DIRECT) {
      await connection.publish({ type: "channel_message", channel, message: text });
    } else if (recipient) {
      await connection.publish({ type: "user_message", recipient_id: recipient, message: text });
      hearOwn(recipient, { type: "user_message", message: text });
    } else {
      connection.send(JSON.stringify({ type: "text", data: text }));
    }
  } catch (error) {
    if (!box.value) box.value = text;
    complain("Not sent")(error);
  }
});

byId("message").addEventListener("keydown", (event) => {
  // While an input method composes a character, Enter chooses it.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("composer").requestSubmit();
});

// ---- Files ----

const files = new FilePanel({
  target: () => {
    if (connection.state === "closed") return null;
    const channel = conversations.selected;
    if (channel !== DIRECT) return { label: channel, channel, query: [["channel", channel]] };
    const recipient = byId("recipient").value.trim();
    return recipient ? { label: recipient, recipient, query: [["user_id", recipient]] } : { label: "the server, which sends it back" };
  },
  credentials: () => connection.credentials,
  echo: async (file) => {
    if (file.size > MOST_ECHOED) throw new Error(`Choose a channel or somebody: more than ${sizeText(MOST_ECHOED)} are not echoed.`);
    const head = { type: "binary", filename: file.name, content_type: file.type || undefined };
    if (!connection.send(encodeFrame(head, await file.arrayBuffer()))) throw new Error("There is no connection at the moment.");
  },
  sent: async (file, { recipient }, answer) => {
    if (recipient === undefined) return;
    const data = file.size <= MOST_SHOWN ? new Uint8Array(await file.arrayBuffer()) : undefined;
    hearOwn(recipient, { ...answer, type: "binary", data });
  },
  inWords: (error) => inWords(error, credential.used),
});

byId("raw-form").addEventListener("submit", (event) => {
  event.preventDefault();
  if (byId("raw").value && connection.send(byId("raw").value)) byId("raw").select();
});

// ---- Latency and statistics ----

const server = new ServerPanel(connection, { inWords: (error) => inWords(error, credential.used) });

function refresh() {
  if (connection.state !== "open") return;
  if (conversations.selected === DIRECT) refreshOnline();
  server.refresh();
}

byId("refresh").addEventListener("click", refresh);
setInterval(() => document.hidden || refresh(), REFRESH_EVERY * 1000);

// ---- The address of the page holds what was typed, so that it can be reloaded, bookmarked and shared ----

function remember() {
  const query = new URLSearchParams();
  for (const channel of connection.channels) query.append("channel", channel);
  const name = byId("name").value.trim();
  if (name) query.set("user_id", name);
  if (call.roomId !== null) query.set("room", call.roomId);
  // A reload forgets what was entered, so it could not connect as whoever that was.
  if (connection.state !== "closed" && !credential.filled) query.set("connect", "1");
  const text = query.toString();
  try {
    history.replaceState(null, "", text ? `?${text}` : location.pathname);
  } catch {
    // Browsers limit how often an address may change; the next change will tell.
  }
}

byId("name").addEventListener("change", remember);

const preset = new URLSearchParams(location.search);
const name = preset.get("user_id");
// Where there is none, somebody may have typed while this script was on its way.
if (name) byId("name").value = name;
conversations.add(DIRECT);
const room = preset.get("room");
const channels = [...new Set(preset.getAll("channel"))].filter(Boolean);
for (const channel of channels) join(channel);
conversations.select(channels[0] ?? DIRECT);
if (preset.get("connect") === "1") connect();
if (room) call.offer(room);
if (room && preset.get("connect") === "1") call.join(room);
