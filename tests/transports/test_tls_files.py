"""The TLS of the command: its files, what is wrong with them, and how they change while it serves."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import attrs
import httpx2
import pytest
import trustme
from cryptography import x509
from joserfc import jwt
from joserfc.jwk import ECKey
from websockets.sync.client import connect

from rtcore_adapters.hosting_error import HostingError
from rtcore_adapters.tls import ServerTls, TlsFiles, tls_files

from ..programs import ROOT, Program, running

_RTCORE = str(Path(sys.executable).with_name("rtcore"))
_TIMEOUT = 10.0


@attrs.frozen
class Files:
    """An authority, and a certificate of it in files."""

    authority: trustme.CA
    folder: Path

    @property
    def paths(self) -> TlsFiles:
        return TlsFiles(self.folder / "certificate.pem", self.folder / "key.pem")

    def issue(self, **options: datetime) -> x509.Certificate:
        """Put a certificate and its key into the files; returns it."""
        issued = self.authority.issue_cert("127.0.0.1", **options)
        chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
        self.paths.certificate.write_bytes(chain)
        self.paths.key.write_bytes(issued.private_key_pem.bytes())
        return x509.load_pem_x509_certificate(chain)

    def trusting(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(trustme.CA(), tmp_path)
    made.issue()
    return made


# What is wrong


def test_both_files_are_needed() -> None:
    assert tls_files(None, None) is None
    assert tls_files("c", "k", "a") == TlsFiles(Path("c"), Path("k"), Path("a"))
    with pytest.raises(HostingError, match="REALTIME_TLS_KEY"):
        tls_files("c", None)
    with pytest.raises(HostingError, match="REALTIME_TLS_CERTIFICATE"):
        tls_files(None, "k")
    with pytest.raises(HostingError, match="REALTIME_TLS_CERTIFICATE"):
        tls_files(None, None, "a")


@pytest.mark.parametrize("name", ["certificate", "key", "client_ca"])
def test_a_file_that_is_not_there(files: Files, name: str) -> None:
    paths = attrs.evolve(files.paths, **{name: files.folder / "nothing"})
    with pytest.raises(HostingError, match=r"cannot read the .* in .*nothing: No such file or directory$"):
        ServerTls(paths)


@pytest.mark.parametrize("name", ["certificate", "key", "client_ca"])
def test_a_file_that_is_something_else(files: Files, name: str) -> None:
    (files.folder / "text").write_text("-----BEGIN NONSENSE-----\n")
    with pytest.raises(HostingError, match="text") as error:
        ServerTls(attrs.evolve(files.paths, **{name: files.folder / "text"}))
    assert "\n" not in str(error.value)


def test_a_key_of_another_certificate(files: Files) -> None:
    key = files.paths.key.read_bytes()
    files.issue()
    files.paths.key.write_bytes(key)
    with pytest.raises(HostingError, match=r"the key in .* is not that of the certificate in "):
        ServerTls(files.paths)


def test_a_certificate_that_has_expired(files: Files) -> None:
    files.issue(not_after=datetime.now(UTC) - timedelta(days=1))
    with pytest.raises(HostingError, match=r"has expired on \d{4}-\d\d-\d\d: renew it"):
        ServerTls(files.paths)


def test_a_key_with_a_passphrase(files: Files) -> None:
    files.paths.key.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n")
    with pytest.raises(HostingError, match="has a passphrase"):
        ServerTls(files.paths)


def test_old_versions_are_not_spoken(files: Files) -> None:
    context = ServerTls(files.paths).context()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


# The command


@contextmanager
def served(tmp_path: Path, *options: str) -> Iterator[tuple[Program, int]]:
    with running(_RTCORE, "serve", "--port", "0", *options, errors=tmp_path / "errors") as program:
        line = program.read_line()
        assert line.startswith("rtcore serves https://127.0.0.1:"), program.complaints
        yield program, int(line.split("/")[2].partition(":")[2])


def certificate_of(port: int, context: ssl.SSLContext) -> x509.Certificate:
    with (
        socket.create_connection(("127.0.0.1", port), _TIMEOUT) as sock,
        context.wrap_socket(sock, server_hostname="127.0.0.1") as secure,
    ):
        found = secure.getpeercert(binary_form=True)
        assert found is not None
        return x509.load_der_x509_certificate(found)


def until_reloaded(program: Program, port: int, context: ssl.SSLContext, expected: x509.Certificate) -> None:
    """Ask for new certificates until the expected one is there."""
    program.process.send_signal(signal.SIGHUP)
    for _ in range(1000):
        if certificate_of(port, context) == expected:
            return
    raise AssertionError("the new certificate is not used")


@pytest.mark.parametrize("server", ["native", "hypercorn"])
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_a_new_certificate_while_it_serves(files: Files, tmp_path: Path, server: str, loop: str) -> None:
    old = x509.load_pem_x509_certificate(files.paths.certificate.read_bytes())
    trusting = files.trusting()
    options = ("--tls-certificate", str(files.paths.certificate), "--tls-key", str(files.paths.key))
    with served(tmp_path, *options, "--server", server, "--loop", loop) as (program, port):
        assert certificate_of(port, trusting) == old
        assert httpx2.get(f"https://127.0.0.1:{port}/realtime/health", verify=trusting).status_code == 200
        with connect(f"wss://127.0.0.1:{port}/realtime/ws", ssl=trusting, proxy=None) as websocket:
            websocket.recv(_TIMEOUT)
            until_reloaded(program, port, trusting, files.issue())
            # A broken file: the one before is still used, and what is wrong is logged.
            last = certificate_of(port, trusting)
            files.paths.certificate.write_text("nothing")
            program.process.send_signal(signal.SIGHUP)
            while "are not read anew" not in program.complaints:
                assert certificate_of(port, trusting) == last
            assert certificate_of(port, trusting) == last
            until_reloaded(program, port, trusting, files.issue())
            # Who was there before all that still is.
            websocket.send('{"type": "text", "data": "still here"}')
            assert "still here" in str(websocket.recv(_TIMEOUT))
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(_TIMEOUT) == 0
        assert program.complaints.count("\n") == 1 or server == "hypercorn"


@pytest.mark.parametrize("server", ["native", "hypercorn"])
def test_certificates_of_clients(files: Files, tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files.authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("REALTIME_TLS_CERTIFICATE", str(files.paths.certificate))
    monkeypatch.setenv("REALTIME_TLS_KEY", str(files.paths.key))
    monkeypatch.setenv("REALTIME_TLS_CLIENT_CA", str(tmp_path / "ca.pem"))
    with served(tmp_path, "--server", server) as (_, port):
        url = f"https://127.0.0.1:{port}/realtime/health"
        for authority in (None, trustme.CA()):
            context = files.trusting()
            if authority is not None:
                authority.issue_cert("stranger@example.org").configure_cert(context)
            with pytest.raises(httpx2.TransportError):
                httpx2.get(url, verify=context)
        context = files.trusting()
        files.authority.issue_cert("friend@example.org").configure_cert(context)
        assert httpx2.get(url, verify=context).status_code == 200


@pytest.mark.parametrize("server", ["native", "hypercorn"])
def test_a_wrong_file_stops_the_start_with_one_line(files: Files, server: str) -> None:
    files.paths.key.write_text("nothing")
    options = ("--tls-certificate", str(files.paths.certificate), "--tls-key", str(files.paths.key))
    completed = subprocess.run(
        [_RTCORE, "serve", "--port", "0", "--server", server, *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=dict(os.environ),
        check=False,
    )
    assert (completed.returncode, completed.stdout) == (1, "")
    [line] = completed.stderr.splitlines()
    assert line.startswith("rtcore: TLS: ")


def test_the_keys_of_tokens_are_read_anew_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public = tmp_path / "public.pem"

    def new_key() -> str:
        """Put a new public key into the file; returns a token signed with its private key."""
        key = ECKey.generate_key("P-256")
        public.write_bytes(key.as_pem(private=False))
        return jwt.encode({"alg": "ES256"}, {"sub": "anna", "exp": 2**33}, key)

    monkeypatch.setenv("WS_JWT_ALGORITHM", "ES256")
    monkeypatch.setenv("WS_JWT_PUBLIC_KEY", str(public))
    first = new_key()
    with running(_RTCORE, "serve", "--port", "0", errors=tmp_path / "errors") as program:
        url = program.read_line().split()[2]
        assert url.startswith("http://"), program.complaints

        def is_known(token: str) -> bool:
            headers = {"Authorization": f"Bearer {token}"}
            return httpx2.get(f"{url}/channels", headers=headers).status_code == 200

        assert is_known(first)
        second = new_key()
        assert not is_known(second)
        program.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + _TIMEOUT
        while not is_known(second):
            assert time.monotonic() < until, program.complaints
        assert not is_known(first)


def test_without_anything_to_read_anew_a_hangup_ends_it(tmp_path: Path) -> None:
    # Unless whoever starts it has it ignored, as `nohup` does.
    command = ["env", "--default-signal=HUP", _RTCORE, "serve", "--port", "0"]
    with running(*command, errors=tmp_path / "errors") as program:
        assert program.read_line().startswith("rtcore serves http://")
        program.process.send_signal(signal.SIGHUP)
        assert program.process.wait(_TIMEOUT) == -signal.SIGHUP


def test_it_may_open_as_many_files_as_it_may(tmp_path: Path) -> None:
    command = ["sh", "-c", f"ulimit -Sn 128; exec {_RTCORE} serve --port 0"]
    with running(*command, errors=tmp_path / "errors") as program:
        assert program.read_line().startswith("rtcore serves http://")
        limits = Path(f"/proc/{program.process.pid}/limits").read_text()
        [line] = [line for line in limits.splitlines() if line.startswith("Max open files")]
        soft, hard = line.split()[3:5]
        assert soft == hard != "128"
