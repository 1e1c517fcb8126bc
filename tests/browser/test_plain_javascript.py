"""The JavaScript of the documentation, as it stands there, on a page that has nothing else of ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .call import SCRIPT, growth
from .server import Server
from .tabs import Tabs

LOOP = "trio"

pytestmark = pytest.mark.xdist_group("browser")

_ROOT = Path(__file__).parents[2]


# The snippet gets a console of the test's, and is through once its two connections are open.
_AROUND = """async () => {
  window.heard = [];
  const console = { log: (...words) => window.heard.push(words.at(-1)) };
  SNIPPET
  const opened = (source) => new Promise((resolve) => source.addEventListener("open", resolve));
  await Promise.all([SOURCES].map(opened));
}"""


def javascript_of(document: str, server: Server) -> str:
    """The one block of JavaScript in a document, with the server's port for the one written there."""
    (block,) = re.findall(r"```javascript\n(.*?)```", (_ROOT / document).read_text(encoding="utf-8"), re.DOTALL)
    port = server.origin.rpartition(":")[2]
    return str(block).replace(":8000/", f":{port}/")


@pytest.mark.parametrize(
    ("document", "sources", "host"),
    [
        ("docs/quick-guide.ru.md", "ws, eventSource", "localhost"),
        ("README.md", "socket, events", "127.0.0.1"),
    ],
    ids=["guide", "readme"],
)
def test_javascript_of_the_documentation(document: str, sources: str, host: str, server: Server, tabs: Tabs) -> None:
    # There is no icon for this address, but the browser asks.
    tabs.expect_complaint("status of 404")
    page = tabs.open(f"{server.origin.replace('127.0.0.1', host)}/realtime/health")
    page.evaluate(_AROUND.replace("SNIPPET", javascript_of(document, server)).replace("SOURCES", sources))
    page.wait_for_function("heard.some(({ type, protocol }) => type === 'connected' && protocol === 1)")
    assert page.request.post(f"{server.url}/broadcast", data={"message": "Привет всем!"}).ok
    # The same publication, on both wires.
    broadcasts = page.wait_for_function(
        "(() => { const all = heard.filter(({ type }) => type === 'broadcast'); return all.length > 1 && all; })()"
    ).json_value()
    assert broadcasts == [broadcasts[0]] * 2
    assert broadcasts[0]["message"] == "Привет всем!"
    assert broadcasts[0]["meta"]["sender"] == {"connection_id": None, "user_id": None}


def test_the_call_of_the_documentation(server: Server, tabs: Tabs) -> None:
    # There is no icon for this address, but the browser asks.
    tabs.expect_complaint("status of 404")
    (html,) = re.findall(r"```html\n(.*?)```", (_ROOT / "docs/signaling.md").read_text(encoding="utf-8"), re.DOTALL)
    pages = [tabs.open(f"{server.url}/health", script=SCRIPT) for _ in range(2)]
    for page in pages:
        page.set_content(html)
    for page in pages:
        growth(page)
        page.wait_for_function("document.querySelector('main video').videoWidth > 0")
    pages[1].close()
    # Whoever is away may come back for a while.
    pages[0].wait_for_function("document.querySelectorAll('main video').length === 0", timeout=60_000)
