"""The command, run as people run it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest
import trustme
from joserfc import jwt
from joserfc.jwk import OctKey
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from rtcore_adapters.cli_remote import Remote

from ..programs import ROOT, Program, running

RTCORE = str(Path(sys.executable).with_name("rtcore"))
TIMEOUT = 10.0


@contextmanager
def served(tmp_path: Path, *options: str, loop: str = "asyncio", port: int = 0) -> Iterator[tuple[Program, int]]:
    command = [RTCORE, "serve", "--port", str(port), "--loop", loop, *options]
    with running(*command, errors=tmp_path / "serve-errors") as server:
        found = re.search(r":(\d+)/", server.read_line())
        assert found, server.complaints
        yield server, int(found[1])


def refused(*arguments: str, **environment: str) -> str:
    """Run a command that must fail with one line; return the line."""
    completed = subprocess.run(
        [RTCORE, *arguments], capture_output=True, text=True, cwd=ROOT, env={**os.environ, **environment}, check=False
    )
    assert (completed.returncode, completed.stdout) == (1, "")
    [line] = completed.stderr.splitlines()
    assert line.startswith("rtcore: ")
    return line


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("server", ["native", "hypercorn"])
def test_serve_until_sigterm(server: str, loop: str, tmp_path: Path) -> None:
    with served(tmp_path, "--server", server, loop=loop) as (program, port):
        base = f"127.0.0.1:{port}/realtime"
        assert httpx2.get(f"http://{base}/test").status_code == 200
        with connect(f"ws://{base}/ws", proxy=None) as websocket:
            assert json.loads(websocket.recv(TIMEOUT))["type"] == "connected"
            program.process.send_signal(signal.SIGTERM)
            farewell = json.loads(websocket.recv(TIMEOUT))
            assert (farewell["type"], farewell["code"], farewell["reconnect"]) == ("disconnect", 1012, True)
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(TIMEOUT)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert program.process.wait(TIMEOUT) == 0
        if server == "native":
            # Hypercorn cancels what is left of its connections, of which asyncio of Python 3.11 complains.
            assert program.complaints == ""


def test_ctrl_c_is_clean(tmp_path: Path) -> None:
    with served(tmp_path) as (program, _):
        program.process.send_signal(signal.SIGINT)
        assert program.process.wait(TIMEOUT) == 0
        assert program.complaints == ""


def test_an_application_beside(tmp_path: Path) -> None:
    with served(tmp_path, "--app", "examples.echo:app") as (_, port):
        with connect(f"ws://127.0.0.1:{port}/anywhere", proxy=None) as websocket:
            websocket.send(b"\x00\x01")
            assert websocket.recv(TIMEOUT) == b"\x00\x01"
        with connect(f"ws://127.0.0.1:{port}/realtime/ws", proxy=None) as websocket:
            assert json.loads(websocket.recv(TIMEOUT))["type"] == "connected"


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_sub_hears_pub(loop: str, tmp_path: Path) -> None:
    with served(tmp_path, loop=loop) as (_, port):
        url = ["--url", f"http://127.0.0.1:{port}/realtime"]
        command = [RTCORE, "sub", "news", "sport", "--count", "2", *url]
        with running(*command, errors=tmp_path / "sub", errors_are_output=True) as sub:
            assert sub.read_line() == "listening to news, sport"
            assert sorted(output_of("pub", "news", "Hello", *url)) == ["epoch", "id", "offset"]
            output_of("pub", "sport", '{"type": "goal", "by": "Ann"}', *url)
            assert [sub.read_line(), sub.read_line()] == ["[news] Hello", '[sport] {"type":"goal","by":"Ann"}']
            assert sub.wait() == 0
        assert output_of("stats", *url)["published_messages"] == 2


def test_sub_prints_json(tmp_path: Path) -> None:
    with served(tmp_path) as (_, port):
        url = ["--url", f"ws://127.0.0.1:{port}/realtime/ws"]
        with running(RTCORE, "sub", "news", "--json", "--count", "1", *url, errors=tmp_path / "sub") as sub:
            while httpx2.get(f"http://127.0.0.1:{port}/realtime/channels/news/presence").json()["count"] == 0:
                pass
            receipt = output_of("pub", "news", '{"text": "Hello"}', *url)
            message = json.loads(sub.read_line())
            assert (message["channel"], message["text"], message["meta"]["id"]) == ("news", "Hello", receipt["id"])
            assert sub.wait() == 0


def test_sub_says_what_may_be_missing(tmp_path: Path) -> None:
    """It goes on with another server, which cannot tell what was said meanwhile."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = ["--url", f"http://127.0.0.1:{port}/realtime"]
    command = [RTCORE, "sub", "news", "--count", "2", *url]
    with ExitStack() as stack:
        with served(tmp_path, port=port):
            sub = stack.enter_context(running(*command, errors=tmp_path / "sub", errors_are_output=True))
            assert sub.read_line() == "listening to news"
            output_of("pub", "news", "one", *url)
            assert sub.read_line() == "[news] one"
        with served(tmp_path, port=port):
            assert sub.read_line() == "something may be missing in $broadcast (foreign_token)"
            assert sub.read_line() == "something may be missing in news (history_lost)"
            output_of("pub", "news", "two", *url)
            assert sub.read_line() == "[news] two"
            assert sub.wait() == 0


def test_history(tmp_path: Path) -> None:
    with served(tmp_path) as (_, port):
        url = ["--url", f"http://127.0.0.1:{port}/realtime"]
        for text in ("one", "two", "three"):
            output_of("pub", "a/b c?", text, *url)
        assert lines_of("history", "a/b c?", *url) == ["[a/b c?] one", "[a/b c?] two", "[a/b c?] three"]
        [line] = lines_of("history", "a/b c?", "--limit", "1", "--json", *url)
        assert json.loads(line)["data"] == "three"
        assert lines_of("history", "silent", *url) == []
        assert "invalid_channel" in refused("history", "$broadcast", *url)
        assert "--limit" in refused("history", "news", "--limit", "0", *url)


def test_faults_are_one_line() -> None:
    nowhere = "http://127.0.0.1:9/realtime"
    assert "no answer from" in refused("stats", "--url", nowhere)
    assert "no answer from" in refused("pub", "news", "Hello", RTCORE_URL=nowhere)
    assert "127.0.0.1:9" in refused("sub", "news", "--url", nowhere)
    assert "REALTIME_ALLOW_ANONYMOUS=true" in refused("serve", "--host", "0.0.0.0")
    assert "WEBSOCKET_ENABLED is 'perhaps'" in refused("serve", WEBSOCKET_ENABLED="perhaps")
    assert "module:attribute" in refused("serve", "--app", "main")
    assert "no_such_module" in refused("serve", "--app", "no_such_module:app")
    assert "no ASGI application" in refused("serve", "--app", "examples.echo:nothing")
    assert "cannot serve on 192.0.2.1" in refused("serve", "--host", "192.0.2.1", REALTIME_ALLOW_ANONYMOUS="true")
    assert "No such option" in refused("stats", "--nothing")


def test_a_refused_publication_is_one_line(tmp_path: Path) -> None:
    with served(tmp_path) as (_, port):
        line = refused("pub", "$user:1", "Hello", "--url", f"http://127.0.0.1:{port}/realtime")
    assert line == "rtcore: invalid_channel: names that begin with '$' are the server's own: choose another"


SECRET = "a-secret-of-more-than-thirty-two-bytes"


@pytest.fixture
def keyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers and commands know a key by which tokens are signed."""
    monkeypatch.setenv("WS_JWT_SECRET_KEY", SECRET)
    monkeypatch.setenv("WEBSOCKET_AUTH_REQUIRED", "true")


def claims_of(*arguments: str) -> dict[str, object]:
    """Make a token by the command, and return what it says."""
    [token] = lines_of("token", *arguments)
    claims: dict[str, object] = jwt.decode(token, OctKey.import_key(SECRET), algorithms=["HS256"]).claims
    return claims


@pytest.mark.usefixtures("keyed")
def test_token() -> None:
    now = time.time()
    claims = claims_of("--user", "ann")
    assert sorted(claims) == ["exp", "iat", "jti", "sub"]
    assert claims["sub"] == "ann"
    assert now + 3590 < float(str(claims["exp"])) < now + 3700
    patterns = [
        "--channels",
        "news:*",
        "--channels",
        "sport",
        "--publish",
        "sport",
        "--history",
        "h",
        "--presence",
        "p",
    ]
    rest = ["--upload", "u", "--rooms", "r*", "--role", "editor", "--role", "admin", "--expires", "60"]
    claims = claims_of("--user", "7", *patterns, *rest)
    assert float(str(claims.pop("exp"))) < now + 100
    del claims["iat"], claims["jti"]
    assert claims == {
        "sub": "7",
        "channels": ["news:*", "sport"],
        "publish": ["sport"],
        "history": ["h"],
        "presence": ["p"],
        "upload": ["u"],
        "rooms": ["r*"],
        "roles": ["editor", "admin"],
    }
    assert "--user" in refused("token")
    assert "invalid_claims" in refused("token", "--user", "ann", "--expires", "-1e30", "--channels", "a\nb")


def test_token_needs_a_key(tmp_path: Path) -> None:
    assert "WS_JWT_SECRET_KEY" in refused("token", "--user", "ann")
    config = tmp_path / "other.toml"
    config.write_text(f'[ws]\njwt_secret_key = "{SECRET}"\n')
    [token] = lines_of("token", "--user", "ann", "--config", str(config))
    assert token.count(".") == 2


@pytest.mark.usefixtures("keyed")
def test_revoke(tmp_path: Path) -> None:
    [ann] = lines_of("token", "--user", "ann", "--channels", "news")
    [bob] = lines_of("token", "--user", "bob")
    [admin] = lines_of("token", "--user", "root", "--role", "admin")
    with served(tmp_path) as (_, port):
        url = ["--url", f"http://127.0.0.1:{port}/realtime"]
        as_admin = [*url, "--token", admin]
        assert "unauthorized" in refused("revoke", "--user", "ann", *url)
        assert "admin_required" in refused("revoke", "--user", "ann", *url, "--token", bob)
        with ExitStack() as stack:
            subs = []
            for channel, token in (("news", ann), ("sport", bob)):
                command = [RTCORE, "sub", channel, *url, "--token", token]
                sub = stack.enter_context(running(*command, errors=tmp_path / channel, errors_are_output=True))
                assert sub.read_line() == f"listening to {channel}"
                subs.append(sub)
            assert output_of("revoke", "--user", "ann", *as_admin) == {"closed": 1}
            assert subs[0].read_line() == "rtcore: connection closed with code 4401: the token was revoked"
            assert subs[0].wait() == 1
            bobs_id = jwt.decode(bob, OctKey.import_key(SECRET), algorithms=["HS256"]).claims["jti"]
            options = ["--token-id", bobs_id, "--issued-before", "1", "--expires", "3600"]
            assert output_of("revoke", *options, *as_admin) == {"closed": 0}
            assert output_of("revoke", "--token-id", bobs_id, *as_admin) == {"closed": 1}
            assert subs[1].wait() == 1
        assert "token_revoked" in refused("pub", "news", "Hello", *url, "--token", ann)
        assert "invalid_revocation" in refused("revoke", *as_admin)


def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    files = {name: str(tmp_path / name) for name in ("ca.pem", "server.pem", "server.key", "client.pem", "client.key")}
    authority.cert_pem.write_to_path(files["ca.pem"])
    for name, certificate in (("server", authority.issue_cert("127.0.0.1")), ("client", authority.issue_cert("ann"))):
        certificate.cert_chain_pems[0].write_to_path(files[f"{name}.pem"])
        certificate.private_key_pem.write_to_path(files[f"{name}.key"])
    monkeypatch.setenv("REALTIME_TLS_CERTIFICATE", files["server.pem"])
    monkeypatch.setenv("REALTIME_TLS_KEY", files["server.key"])
    monkeypatch.setenv("REALTIME_TLS_CLIENT_CA", files["ca.pem"])
    with served(tmp_path) as (_, port):
        url = ["--url", f"https://127.0.0.1:{port}/realtime"]
        trust = [*url, "--ca-file", files["ca.pem"]]
        shown = ["--client-cert", files["client.pem"], "--client-key", files["client.key"]]
        with running(
            RTCORE, "sub", "news", "--count", "1", *trust, *shown, errors=tmp_path / "sub", errors_are_output=True
        ) as sub:
            assert sub.read_line() == "listening to news"
            output_of("pub", "news", "Hello", *trust, *shown)
            assert sub.read_line() == "[news] Hello"
            assert sub.wait() == 0
        assert "certificate" in refused("stats", *url, *shown).lower()
        assert "no answer from" in refused("stats", *trust)
        monkeypatch.setenv("RTCORE_CA_FILE", files["ca.pem"])
        monkeypatch.setenv("RTCORE_CLIENT_CERT", files["client.pem"])
        monkeypatch.setenv("RTCORE_CLIENT_KEY", files["client.key"])
        assert output_of("stats", *url)["total_connections"] == 0


def test_certificates_that_cannot_be_read(tmp_path: Path) -> None:
    assert "cannot read authorities from '/missing.pem'" in refused("stats", "--ca-file", "/missing.pem")
    assert "cannot read a certificate" in refused("sub", "news", "--client-cert", "/missing.pem")
    assert "--client-key goes with --client-cert" in refused("stats", "--client-key", "/missing.pem")


def test_credentials_are_not_told() -> None:
    for option in ("--token", "--api-key"):
        assert "s3cr3t" not in refused("stats", option, "s3cr3t s3cr3t")
        assert "s3cr3t" not in refused("sub", "news", option, "s3cr3t", "--url", "http://127.0.0.1:9/realtime")
    remote = Remote("http://localhost", "s3cr3t", "s3cr3t", None, None, None)
    assert "s3cr3t" not in repr(remote)


def lines_of(*arguments: str) -> list[str]:
    return subprocess.run([RTCORE, *arguments], check=True, capture_output=True, text=True).stdout.splitlines()


def output_of(*arguments: str) -> dict[str, object]:
    answer: dict[str, object] = json.loads("".join(lines_of(*arguments)))
    return answer


def test_a_loop_that_is_not_installed_is_one_line() -> None:
    program = "import sys; sys.modules['trio'] = None; from rtcore_adapters.cli import main; main()"
    command = [sys.executable, "-c", program, "serve", "--loop", "trio", "--port", "0"]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (completed.returncode, completed.stdout) == (1, "")
    assert completed.stderr == "rtcore: --loop trio needs trio: pip install 'rtcore[trio]'\n"
