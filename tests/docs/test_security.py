"""The document of security is right: its server starts, its clients get in, and its matrix is that of the tests."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import trustme

from rtcore_transports import WSClient

from ..adapters.permission_matrix import markdown
from ..programs import running
from .snippets import ROOT, snippets

DOCUMENT = "docs/security.md"
SECRET = "a-secret-of-the-documents-that-is-long-enough"
API_KEY = "an-api-key-of-the-documents"


def blocks(language: str) -> list[str]:
    return [each.code for each in snippets(DOCUMENT) if each.language == language]


def run(code: str, **names: Any) -> dict[str, Any]:
    exec(compile(code, DOCUMENT, "exec"), names)
    return names


def test_no_snippet_is_left_out() -> None:
    assert [(each.heading, each.language) for each in snippets(DOCUMENT)] == [
        ("In five minutes", "sh"),
        ("In five minutes", "python"),
        ("In five minutes", "python"),
    ]


def test_the_matrix() -> None:
    text = (ROOT / DOCUMENT).read_text()
    [section] = re.findall(r"^## Who may do what over HTTP.*?(?=^## )", text, re.MULTILINE | re.DOTALL)
    tables = re.findall(r"(?:^\|.*\|\n)+", section, re.MULTILINE)
    assert [table.strip() for table in tables] == markdown().split("\n\n")


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_five_minutes(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    for number, blob in enumerate(certificate.cert_chain_pems):
        blob.write_to_path(tmp_path / "cert.pem", append=number > 0)
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    [shell] = blocks("sh")
    # What it draws, the application and its clients must know.
    for name, value in (("WS_JWT_SECRET_KEY", SECRET), ("WS_API_KEYS", API_KEY)):
        shell, drawn = re.subn(rf'(?<={name}=)"\$\(python3 -c \'.*\'\)"', value, shell)
        assert drawn == 1
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    shell = shell.replace("rtcore serve", f"cd {tmp_path}\nexec rtcore serve --port 0")
    with running("sh", "-c", shell, errors=tmp_path / "errors") as server:
        found = re.search(r"serves https://0\.0\.0\.0:(\d+)/", server.read_line())
        assert found, server.complaints
        base = f"//localhost:{found[1]}/realtime"

        application, client = blocks("python")
        monkeypatch.setenv("WS_JWT_SECRET_KEY", SECRET)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        monkeypatch.chdir(tmp_path)
        application_names = run(application)
        assert application_names["claims"]["sub"] == "ann"
        assert application_names["claims"]["exp"] == pytest.approx(application_names["claims"]["iat"] + 900)

        async def ask_my_application_for_a_token() -> str:
            token: str = application_names["token"]
            return token

        names = run(
            client.replace("wss://example.org/realtime", f"wss:{base}"),
            ask_my_application_for_a_token=ask_my_application_for_a_token,
        )

        async def main() -> None:
            ann: WSClient = names["client"]
            with anyio.fail_after(60):
                async with ann, httpx2.AsyncClient(headers={"X-API-Key": API_KEY}) as http:
                    await ann.subscribe_to_channel("user:ann:news")
                    await ann.subscribe_to_channel("chat:1")
                    body = {"channel": "chat:1", "text": "Hello, Ann"}
                    (await http.post(f"https:{base}/send", json=body)).raise_for_status()
                    async for message in ann:
                        if message.get("text") == "Hello, Ann":
                            return

        anyio.run(main, backend=backend)
        assert httpx2.get(f"https:{base}/channels").status_code == 401
        assert server.stop() == 0
        assert server.complaints == ""


def test_the_keys_that_it_draws(tmp_path: Path) -> None:
    """The commands that draw them do, and what they draw is long enough."""
    [shell] = blocks("sh")
    exports, _, serve = shell.strip().rpartition("\n")
    assert serve.startswith("rtcore serve")
    show = f'{exports}\nprintf \'%s\\n%s\\n\' "$WS_JWT_SECRET_KEY" "$WS_API_KEYS"'
    with running("sh", "-c", show, errors=tmp_path / "errors") as program:
        secret, key = program.read_line(), program.read_line()
        assert program.wait() == 0, program.complaints
    assert (len(secret), len(key)) == (64, 43)
