"""The code in the documents, as tests take it from there."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import attrs

__all__ = ["ROOT", "Snippet", "snippets"]

#: The folder of the project.
ROOT = Path(__file__).parents[2]

_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ +(?P<title>.+)$", re.MULTILINE)


@attrs.frozen
class Snippet:
    """One block of code.

    Attributes:
        heading: The heading that it stands under.
        language: As named behind the opening fence.
        code: Without the fences.
    """

    heading: str
    language: str
    code: str

    def on_port(self, port: int) -> Snippet:
        """Return it with the port of a server that runs."""
        return attrs.evolve(self, code=self.code.replace(":8000/", f":{port}/"))

    def as_function(self, *names: str) -> str:
        """Return it as the body of an async function ``snippet`` that takes what it uses without defining it."""
        return f"async def snippet({', '.join(names)}):\n{textwrap.indent(self.code, '    ')}"


def snippets(document: str) -> list[Snippet]:
    """Return the blocks of code of a document, in order."""
    text = (ROOT / document).read_text()
    headings = [(match.start(), match["title"]) for match in _HEADING.finditer(text)]
    found = []
    for block in _BLOCK.finditer(text):
        title = [title for start, title in headings if start < block.start()][-1]
        found.append(Snippet(title, block["language"], block["code"]))
    return found
