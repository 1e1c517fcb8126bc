"""The two live test pages, `test.html` and `sse-test.html`, and what they load.

The pages are plain HTML, CSS and JavaScript modules: no build step, nothing from another origin, no inline
script or style, so the strictest Content-Security-Policy holds (each page carries it in a ``meta`` element).
They work out every address from their own, so they may be served under any prefix: the pages at
``{prefix}/test`` and ``{prefix}/sse-test``, every other file at ``{prefix}/assets/NAME``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Final

__all__ = ["CONTENT_TYPES", "page"]

_HTML: Final = "text/html; charset=utf-8"
_CSS: Final = "text/css; charset=utf-8"
# HTML, section 2.1.3: "text/javascript" is the one type that module scripts are to be served with.
_JAVASCRIPT: Final = "text/javascript; charset=utf-8"

#: The ``Content-Type`` of each file, by name; its keys are all the names that `page` knows.
CONTENT_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "test.html": _HTML,
        "sse-test.html": _HTML,
        "rtcore.css": _CSS,
        "call.css": _CSS,
        "files.css": _CSS,
        "advice.js": _JAVASCRIPT,
        "binary-frames.js": _JAVASCRIPT,
        "call-panel.js": _JAVASCRIPT,
        "call.js": _JAVASCRIPT,
        "conversations.js": _JAVASCRIPT,
        "credential-field.js": _JAVASCRIPT,
        "credentials.js": _JAVASCRIPT,
        "devices.js": _JAVASCRIPT,
        "dom.js": _JAVASCRIPT,
        "endpoints.js": _JAVASCRIPT,
        "event-stream.js": _JAVASCRIPT,
        "file-panel.js": _JAVASCRIPT,
        "file-upload.js": _JAVASCRIPT,
        "file-view.js": _JAVASCRIPT,
        "files.js": _JAVASCRIPT,
        "log.js": _JAVASCRIPT,
        "members.js": _JAVASCRIPT,
        "mesh.js": _JAVASCRIPT,
        "negotiation.js": _JAVASCRIPT,
        "positions.js": _JAVASCRIPT,
        "random.js": _JAVASCRIPT,
        "received-files.js": _JAVASCRIPT,
        "reconnection.js": _JAVASCRIPT,
        "requests.js": _JAVASCRIPT,
        "rtcore.js": _JAVASCRIPT,
        "server-panel.js": _JAVASCRIPT,
        "sse-test.js": _JAVASCRIPT,
        "test.js": _JAVASCRIPT,
        "toasts.js": _JAVASCRIPT,
        "token-refresh.js": _JAVASCRIPT,
    }
)


@cache
def page(name: str) -> bytes:
    """Return the file called `name`, read once from the installed package.

    Args:
        name: One of the keys of `CONTENT_TYPES`.

    Raises:
        KeyError: There is no such file. The table decides and not the file system, so a name from a
            request's path cannot lead out of this package.
    """
    if name not in CONTENT_TYPES:
        raise KeyError(name)
    return resources.files(__name__).joinpath(name).read_bytes()
