"""RFC 6455 as Autobahn's cases have it: the native server with the echo example, and the echo client.

Compression (12.*, 13.*) is not supported. Cases 9.*, large messages, run with ``--all-cases``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from ..programs import running

HERE = Path(__file__).parent

# NON-STRICT: what a case allows beside what it would rather see. INFORMATIONAL: what the RFC leaves open.
PASSES = ("OK", "NON-STRICT", "INFORMATIONAL")


def python(script: str, *arguments: str) -> list[str]:
    """Return the command that runs a script of this folder; a warning in it is an error."""
    return [sys.executable, "-W", "error", str(HERE / script), *arguments]


def selection(all_cases: bool) -> list[str]:
    """Return the arguments that choose the cases."""
    left_out = ["12.*", "13.*"] if all_cases else ["9.*", "12.*", "13.*"]
    return [argument for pattern in left_out for argument in ("-x", pattern)]


def assert_conforms(reports: Path, *, all_cases: bool) -> None:
    """Read the suite's report; fail with each case that failed, and why."""
    (verdicts,) = json.loads((reports / "index.json").read_text()).values()
    failures = []
    for case, verdict in verdicts.items():
        if verdict["behavior"] not in PASSES or verdict["behaviorClose"] not in PASSES:
            report = json.loads((reports / verdict["reportfile"]).read_text())
            failures.append(
                f"{case}: {verdict['behavior']}, close {verdict['behaviorClose']} ({verdict['remoteCloseCode']}): "
                f"{report['result']} {report['resultClose']}"
            )
    assert not failures, "\n".join([f"{len(failures)} of {len(verdicts)} cases failed:", *failures])
    assert len(verdicts) == (301 if all_cases else 247)


def test_server(anyio_backend_name: str, kosoku: str, all_cases: bool, tmp_path: Path) -> None:
    with running(*python("serve_echo.py", anyio_backend_name), errors=tmp_path / "server.log") as server:
        address = server.read_line()
        assert address, server.complaints
        arguments = ["-m", "fuzzingclient", "-p", "4", *selection(all_cases), "-o", str(tmp_path / "reports"), address]
        suite = subprocess.run([kosoku, *arguments], capture_output=True, text=True)
        assert (server.stop(), server.complaints) == (0, "")
    assert (tmp_path / "reports").is_dir(), suite.stderr
    assert_conforms(tmp_path / "reports", all_cases=all_cases)
    assert suite.returncode == 0, suite.stderr


def test_client(anyio_backend_name: str, kosoku: str, all_cases: bool, tmp_path: Path) -> None:
    arguments = ["-m", "fuzzingserver", *selection(all_cases), "-o", str(tmp_path / "reports"), "127.0.0.1:0"]
    with running(kosoku, *arguments, errors=tmp_path / "suite.log", errors_are_output=True) as suite:
        _, _, address = suite.read_line().partition("://")
        with running(*python("run_cases.py", anyio_backend_name, address), errors=tmp_path / "client.log") as client:
            assert (client.wait(), client.complaints) == (0, "")
        status = suite.wait()
    assert_conforms(tmp_path / "reports", all_cases=all_cases)
    assert status == 0
