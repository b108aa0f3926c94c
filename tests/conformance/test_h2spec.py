"""h2spec, the conformance suite for HTTP/2 servers, strict cases included, against the session's TCP harness.

h2spec wants plain HTTP: it sends GET and POST to ``/``.  A gRPC server answers those with 405 and 415 and a line of
text, which is all that the suite needs (its flow-control cases want a body of at least one byte).
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from tests.real.tools import REPOSITORY, TOOLS, built

EXCEPTIONS: dict[str, str] = {}
"""Cases that may fail, with the reason.  There are none."""


@pytest.fixture
def harness() -> Iterator[int]:
    """The port of a harness that runs as a process of its own."""
    command = [sys.executable, "-m", "cogkit.buildkit.session", "--listen", "0"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+)\n", line)
        assert match, line
        yield int(match[1])
        process.terminate()
        assert process.wait(60) == 0


def test_every_case_passes(harness: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    h2spec = built(TOOLS / "bin" / "h2spec")
    report = tmp_path_factory.mktemp("h2spec") / "report.xml"
    run = subprocess.run(
        [h2spec, "--host", "127.0.0.1", "--port", str(harness), "--strict", "--timeout", "5", "--junit-report", report],
        capture_output=True,
        text=True,
        timeout=280,
    )
    cases = ElementTree.parse(report).getroot().findall(".//testcase")
    failed = {
        f"{case.get('package')}: {case.get('classname')}"
        for case in cases
        if case.find("failure") is not None or case.find("error") is not None or case.find("skipped") is not None
    }
    assert len(cases) >= 146, run.stdout
    assert failed == set(EXCEPTIONS), run.stdout
    assert run.returncode == 0
