"""The pages on a server that wants to know who comes: tokens, keys, what ends them, and pages of other origins."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Page, Route, expect

from .authentication import OPERATOR_KEY, REQUIRED, message_numbers, post, token, token_function
from .server import Server
from .tabs import Tabs, say

LOOP = "asyncio"

pytestmark = pytest.mark.xdist_group("browser")

StartServer = Callable[..., Server]

_LUCK = "Math.random = () => 0.1;"
_PAGES = ["test", "sse-test"]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that wants to know everybody, for the tests that do it no harm."""
    running = Server("asyncio", tmp_path_factory.mktemp("server"), REQUIRED)
    yield running
    assert running.end() == 0
    assert running.complaints == ""


def wait_for_state(page: Page, state: str) -> None:
    expect(page.locator("#state")).to_have_attribute("data-state", state)


def traces_of(page: Page, secret: str) -> list[str]:
    """Where a secret is to be seen, or kept, in a page."""
    places = {
        "address": page.url,
        "storage": str(page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")),
        "history": str(page.evaluate("JSON.stringify(history.state) + document.referrer")),
        "document": page.content(),
        "text": page.locator("body").inner_text(),
    }
    return [place for place, content in places.items() if secret in content]


@pytest.mark.parametrize("page_name", _PAGES)
def test_a_token_in_the_address_signs_in_and_is_gone(
    loop: str, page_name: str, start_server: StartServer, tabs: Tabs, channel: str
) -> None:
    server = start_server(loop, **REQUIRED)
    secret = token("ann")
    page = tabs.open(f"{server.url}/{page_name}?channel={channel}&connect=1#token={secret}")
    wait_for_state(page, "open")
    expect(page.locator("#access")).to_have_text(re.compile(r"^token, \d+ min left$"))
    expect(page.locator("#credential")).to_have_attribute("type", "password")
    post(server, "send", channel=channel, message="7")
    expect(page.locator("#messages .message, #events .event[data-event=message]")).to_have_count(1)
    if page_name == "test":
        expect(page.locator("#user-id")).to_have_text("ann")
        # Frames are shown, but not what proves who we are.
        page.fill("#raw", f'{{"type":"command","command":"refresh_token","data":{{"token":"{secret}"}},"id":"raw"}}')
        page.click("#raw-send")
        expect(page.locator("#frames .frame", has_text='"id":"raw"').last).to_contain_text('"ok":true')
        page.fill("#raw", "")
    else:
        page.fill("#send-message", "hello")
        page.click("#send")
        expect(page.locator("#send-result")).to_have_attribute("data-ok", "true")
        expect(page.locator("#events .event[data-event=message]").last).to_contain_text('"user_id":"ann"')
    assert traces_of(page, secret) == []
    assert "#" not in page.url

    page.click("#credential-show")
    expect(page.locator("#credential")).to_have_attribute("type", "text")
    assert page.locator("#credential").input_value() == secret
    # A reload has forgotten it, and does not try without.
    assert "connect=1" not in page.url
    page.reload()
    wait_for_state(page, "closed")
    expect(page.locator("#credential")).to_have_value("")


@pytest.mark.parametrize("page_name", _PAGES)
def test_a_token_that_is_wrong_and_one_that_is_right(page_name: str, guarded: Server, tabs: Tabs, channel: str) -> None:
    tabs.expect_complaint("status of 401")
    page = tabs.open(f"{guarded.url}/{page_name}?channel={channel}")
    wrong = token("ann")[:-5]
    # As an address that is pasted where the page is open already.
    page.evaluate("(wrong) => { location.hash = `token=${wrong}`; }", wrong)
    expect(page.locator("#credential")).to_have_value(wrong)
    assert wrong not in page.url
    page.click("#connect")
    reason = page.locator("#state-reason")
    expect(reason).to_contain_text("no key of this server has signed this token")
    expect(reason).to_contain_text("Enter another token; if this is an API key, choose “API key”")
    wait_for_state(page, "closed")
    expect(page.locator("#credential")).to_have_attribute("aria-invalid", "true")

    page.select_option("#credential-kind", "apiKey")
    page.click("#connect")
    expect(reason).to_contain_text("this server knows no such API key")
    wait_for_state(page, "closed")

    page.fill("#credential", OPERATOR_KEY)
    page.press("#credential", "Enter")
    wait_for_state(page, "open")
    expect(page.locator("#access")).to_have_text("API key")
    expect(reason).to_be_hidden()
    expect(page.locator("#credential")).not_to_have_attribute("aria-invalid", "true")
    assert OPERATOR_KEY not in page.url
    # It does not disconnect, as the button of the form would.
    page.press("#credential", "Enter")
    wait_for_state(page, "open")


def test_who_comes_with_nothing_is_told_what_to_do(guarded: Server, tabs: Tabs, channel: str) -> None:
    tabs.expect_complaint("status of 401")
    stream = tabs.open(f"{guarded.url}/sse-test?channel={channel}&connect=1")
    expect(stream.locator("#state-reason")).to_have_text(
        "The server wants to know who you are. Enter a token or an API key."
    )
    wait_for_state(stream, "closed")
    stream.fill("#send-message", "hello")
    stream.click("#send")
    expect(stream.locator("#send-result .tag")).to_have_text("401 unauthorized")
    expect(stream.locator("#send-result pre")).to_have_text(
        "The server wants to know who you are. Enter a token or an API key."
    )

    late, never = (tabs.open(f"{guarded.url}/test?channel={channel}&connect=1") for _ in range(2))
    # The server waits for a first message for a while, which is not known to last.
    expect(late.locator("#state-reason")).to_contain_text("If it wants a token or an API key, enter it now.")
    wait_for_state(late, "connecting")
    late.fill("#credential", token("ann"))
    late.click("#credential-use")
    wait_for_state(late, "open")
    expect(late.locator("#user-id")).to_have_text("ann")
    expect(never.locator("#state-reason")).to_have_text(
        "Disconnected: the server wants to know who you are (code 4401). Enter a token or an API key."
    )
    wait_for_state(never, "closed")


def test_tokens_are_renewed_in_time_while_messages_arrive(
    loop: str, start_server: StartServer, tabs: Tabs, channel: str
) -> None:
    server = start_server(loop, **REQUIRED)
    tokens = [token("ann", expires_in) for expires_in in (16, 32, 600)]
    watcher = tabs.open(f"{server.url}/test?channel={channel}&connect=1", script=token_function([token("bob")]))
    chat, stream = (
        tabs.open(f"{server.url}/{name}?channel={channel}&connect=1", script=token_function(tokens)) for name in _PAGES
    )
    for page in (watcher, chat, stream):
        wait_for_state(page, "open")
    expect(watcher.locator("#members .member-name")).to_have_text(["bob", "ann"])
    connection_id = chat.locator("#connection-id").inner_text()

    renewed = chat.locator("#frames .frame[data-direction=out][data-type=refresh_token]")
    reopened = stream.locator("#events .event[data-event=connected]")
    sent = 0
    until = time.monotonic() + 60
    while renewed.count() < 2 or reopened.count() < 3:
        assert time.monotonic() < until, "the tokens were not renewed"
        post(server, "send", channel=channel, message=str(sent))
        sent += 1
        chat.wait_for_timeout(100)
    expect(renewed).to_have_count(2)
    for page in (chat, stream):
        expect(page.locator("#access")).to_have_text(re.compile(r"^token, \d+ min left$"))
        expect(page.locator("#messages .message, #events .event[data-event=message]")).to_have_count(sent)
        assert message_numbers(page) == list(range(sent))
        assert page.evaluate("tokensTaken") == 3
        for secret in tokens:
            assert traces_of(page, secret) == []
    assert chat.locator("#connection-id").inner_text() == connection_id
    assert stream.locator("#retries").inner_text() == "0"
    assert stream.locator("#gap-count").inner_text() == "0"
    # Nobody was away.
    assert watcher.locator(".notice").all_inner_texts() == ["ann joined"]


def test_a_token_of_which_there_is_no_other_is_asked_for(guarded: Server, tabs: Tabs, channel: str) -> None:
    chat, stream = (
        tabs.open(f"{guarded.url}/{name}?channel={channel}&connect=1#token={token('ann', 16)}") for name in _PAGES
    )
    for page in (chat, stream):
        wait_for_state(page, "open")
    post(guarded, "send", channel=channel, message="0")
    connection_id = chat.locator("#connection-id").inner_text()
    for page in (chat, stream):
        expect(page.locator("#credential-note")).to_contain_text("Your token is about to end")
    # In time: the same connection goes on.
    chat.fill("#credential", token("bob"))
    chat.click("#credential-use")
    expect(chat.locator("#toasts .toast")).to_contain_text("Disconnect, and connect with it anew.")
    chat.fill("#credential", token("ann"))
    chat.press("#credential", "Enter")
    expect(chat.locator("#access")).to_have_text(re.compile(r"^token, \d+ min left$"))
    expect(chat.locator("#credential-note")).to_be_hidden()
    expect(chat.locator("#credential-use")).to_be_hidden()

    # Too late: the stream has ended, and it does not come again with what has expired.
    tabs.expect_complaint("status of 401")
    wait_for_state(stream, "closed")
    expect(stream.locator("#state-reason")).to_contain_text("The token has expired. Enter another token")
    post(guarded, "send", channel=channel, message="1")
    stream.fill("#credential", token("ann"))
    stream.press("#credential", "Enter")
    wait_for_state(stream, "open")
    post(guarded, "send", channel=channel, message="2")
    for page in (chat, stream):
        expect(page.locator("#messages .message, #events .event[data-event=message]")).to_have_count(3)
        assert message_numbers(page) == [0, 1, 2]
    assert chat.locator("#connection-id").inner_text() == connection_id
    assert stream.locator("#gap-count").inner_text() == "0"


@pytest.mark.parametrize("page_name", _PAGES)
def test_a_token_that_is_revoked(page_name: str, guarded: Server, tabs: Tabs, channel: str) -> None:
    tabs.expect_complaint("status of 401")
    name = f"{page_name}-ann"
    url = f"{guarded.url}/{page_name}?channel={channel}&connect=1"
    secrets = [token(name, jti=f"{name}-{number}") for number in range(3)]
    page = tabs.open(f"{url}#token={secrets[0]}")
    # One whose next token is good, and one whose next is revoked too.
    lucky = tabs.open(url, script=_LUCK + token_function([secrets[0], secrets[1]]))
    unlucky = tabs.open(url, script=_LUCK + token_function([secrets[0]]))
    for each in (page, lucky, unlucky):
        wait_for_state(each, "open")
    assert post(guarded, "tokens/revoke", token_id=f"{name}-0") == {"closed": 3}
    for each in (page, unlucky):
        wait_for_state(each, "closed")
    expect(page.locator("#state-reason")).to_contain_text(re.compile("the token was revoked", re.IGNORECASE))
    expect(page.locator("#state-reason")).to_contain_text("Enter another token")
    assert unlucky.evaluate("tokensTaken") <= 3
    wait_for_state(lucky, "open")
    assert lucky.evaluate("tokensTaken") == 2
    post(guarded, "send", channel=channel, message="1")
    expect(lucky.locator("#messages .message, #events .event[data-event=message]")).to_have_count(1)


def test_a_token_that_allows_less_leaves_the_channel(guarded: Server, tabs: Tabs, channel: str) -> None:
    kept, lost = f"{channel}-kept", f"{channel}-lost"
    page = tabs.open(f"{guarded.url}/test?channel={lost}&channel={kept}&connect=1#token={token('ann')}")
    expect(page.locator("#tabs li[data-joined=true]")).to_have_count(3)
    post(guarded, "send", channel=lost, message="before")
    expect(page.locator(".message .body")).to_have_text("before")
    page.fill("#credential", token("ann", channels=[kept]))
    page.click("#credential-use")
    tab = page.locator("#tabs li[data-left]")
    expect(tab).to_have_text(re.compile(re.escape(lost)))
    expect(page.locator(".notice").last).to_contain_text(f"You are not in {lost} any more: your token")
    expect(page.locator("#toasts .toast")).to_contain_text(f"Taken out of {lost}")
    # What was said is still there, and the address does not ask for it again.
    expect(page.locator(".message .body")).to_have_text("before")
    assert lost not in page.url
    assert kept in page.url
    # That a list is empty since it is not for us, we are told.
    page.click("#members-refresh")
    expect(page.locator("#members-note")).to_contain_text("does not allow you to know who is in this channel")
    say(page, "hello?")
    expect(page.locator("#toasts .toast").last).to_contain_text("does not allow you to publish to this channel")
    post(guarded, "send", channel=lost, message="unheard")
    post(guarded, "send", channel=kept, message="heard")
    expect(page.locator(f'#tabs [data-testid=tab][data-channel="{kept}"] .badge')).to_have_text("1")

    # With another token it comes back on demand, and only then.
    page.fill("#credential", token("ann"))
    page.click("#credential-use")
    expect(page.locator("#credential-use")).to_be_hidden()
    expect(tab).to_have_count(1)
    page.fill("#channel", lost)
    page.click("#join")
    expect(tab).to_have_count(0)
    expect(page.locator("#tabs li[data-joined=true]")).to_have_count(3)
    post(guarded, "send", channel=lost, message="after")
    expect(page.locator(".message:visible .body").last).to_have_text("after")


def test_a_member_who_comes_back_with_less(guarded: Server, tabs: Tabs, channel: str) -> None:
    page = tabs.open(
        f"{guarded.url}/test?channel={channel}&connect=1",
        script=_LUCK + token_function([token("eve", jti=channel), token("eve", channels=["other"])]),
    )
    expect(page.locator("#tabs li[data-joined=true]")).to_have_count(2)
    post(guarded, "send", channel=channel, message="before")
    expect(page.locator(".message .body")).to_have_text("before")
    post(guarded, "tokens/revoke", token_id=channel)
    expect(page.locator("#tabs li[data-left]")).to_have_count(1)
    wait_for_state(page, "open")
    expect(page.locator(".message .body")).to_have_text("before")


def test_a_stream_does_not_ask_again_for_a_channel_that_has_ended(guarded: Server, tabs: Tabs, channel: str) -> None:
    page = tabs.open(f"{guarded.url}/sse-test?channel={channel}&channel=ended#token={token('ann')}", script=_LUCK)
    asked: list[str] = []
    ending = (
        'event: connected\nid: none-1\ndata: {"type": "connected"}\n\n'
        'event: unsubscribed\ndata: {"type": "unsubscribed", "channel": "ended", "code": "subscribe_denied", '
        '"reason": "your token does not allow it"}\n\n'
    )

    def answer(route: Route) -> None:
        asked.append(route.request.url)
        if len(asked) == 1:
            route.fulfill(status=200, content_type="text/event-stream", body=ending)
        else:
            route.continue_()

    page.route("**/events?*", answer)
    page.click("#connect")
    expect(page.locator("#toasts .toast").first).to_contain_text("Taken out of ended")
    expect(page.locator("#events .event[data-event=connected]")).to_have_count(2)
    wait_for_state(page, "open")
    assert "channel=ended" in asked[0]
    assert "channel=ended" not in asked[1]
    assert f"channel={channel}" in asked[1]
    assert "last_event_id=none-1" in asked[1]
    expect(page.locator("#channels")).to_have_value(channel)
    assert "channel=ended" not in page.url


def test_statistics_are_for_operators(guarded: Server, tabs: Tabs) -> None:
    ann = tabs.open(f"{guarded.url}/test?connect=1#token={token('ann')}")
    expect(ann.locator("#stats-empty")).to_have_text("this needs a credential that may administer the server")
    expect(ann.locator("#members-note")).to_have_text("this needs a credential that may administer the server")
    operator = tabs.open(f"{guarded.url}/test?connect=1#api_key={OPERATOR_KEY}")
    expect(operator.locator('#stats [data-stat="websocket_count"] dd')).to_have_text(re.compile(r"^[1-9]"))
    assert "#" not in operator.url


def test_what_a_token_does_not_allow_over_http(guarded: Server, tabs: Tabs, channel: str) -> None:
    tabs.expect_complaint("status of 403")
    page = tabs.open(f"{guarded.url}/sse-test?channel={channel}#token={token('ann', publish=[])}")
    page.fill("#send-message", "hello")
    page.click("#send")
    expect(page.locator("#send-result .tag")).to_have_text("403 publish_denied")
    expect(page.locator("#send-result pre")).to_contain_text("does not allow you to publish to this channel")


_VISIT = """async ([url, token]) => {
  const end = (source, name) => new Promise((resolve) => source.addEventListener(name, () => resolve(name)));
  const query = `?channel=news&token=${token}`;
  const socket = new WebSocket(`${url.replace("http:", "ws:")}/ws${query}`);
  const stream = new EventSource(`${url}/events${query}`);
  const ask = (path, init) => fetch(`${url}/${path}`, init).then(({ status }) => status, ({ name }) => name);
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const body = JSON.stringify({ channel: "news", message: "hello" });
  const told = await Promise.all([
    Promise.race([end(socket, "message"), end(socket, "error")]),
    Promise.race([end(stream, "connected"), end(stream, "error")]),
    ask("send", { method: "POST", headers, body }),
    ask("channels", { headers }),
  ]);
  socket.close();
  stream.close();
  return told;
}"""


@contextmanager
def pages_of_others() -> Iterator[int]:
    """Serve an empty page under any name, and yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><link rel=icon href=data:,><title>Another page</title>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_pages_of_other_origins(loop: str, start_server: StartServer, tabs: Tabs) -> None:
    with pages_of_others() as port:
        settings = {**REQUIRED, "REALTIME_ALLOWED_ORIGINS": f"http://app.localhost:{port}"}
        server = start_server(loop, **settings)
        app = tabs.open(f"http://app.localhost:{port}/")
        assert app.evaluate(_VISIT, [server.url, token("ann")]) == ["message", "connected", 200, 200]
        tabs.expect_complaint("WebSocket connection|CORS|net::ERR|status of 403")
        evil = tabs.open(f"http://evil.localhost:{port}/")
        assert evil.evaluate(_VISIT, [server.url, token("ann")]) == ["error", "error", "TypeError", "TypeError"]
