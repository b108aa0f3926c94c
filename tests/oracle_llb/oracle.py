"""The oracle of LLB as a process: builds it when its sources changed, and asks it.  See README.md beside this file."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent
BINARY = SOURCE.parent.parent / ".tools" / "bin" / "oracle-llb"


def build() -> Path:
    """The oracle's binary, built if a source is newer.

    Raises:
        RuntimeError: there is no Go, or it cannot be built.
    """
    sources = [*SOURCE.glob("*.go"), SOURCE / "go.mod", SOURCE / "go.sum"]
    if BINARY.exists() and all(source.stat().st_mtime <= BINARY.stat().st_mtime for source in sources):
        return BINARY
    if shutil.which("go") is None:
        raise RuntimeError("the oracle needs Go (https://go.dev/dl) to be built")
    BINARY.parent.mkdir(parents=True, exist_ok=True)
    made = BINARY.with_name(f"{BINARY.name}.{os.getpid()}")
    done = subprocess.run(
        ["go", "build", "-trimpath", "-o", str(made), "."],
        cwd=SOURCE,
        env={**os.environ, "CGO_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the oracle cannot be built:\n{done.stderr}")
    made.replace(BINARY)
    return BINARY


class LLBOracle:
    """BuildKit's ``client/llb`` as a server: graphs in, definitions out, one at a time."""

    def __init__(self, binary: Path):
        self._process = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def marshal(self, graph: dict[str, Any]) -> bytes | str:
        """The definition's bytes, or why there is none."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps(graph).encode() + b"\n")
        stdin.flush()
        line = stdout.readline()
        assert line, "the oracle died"
        answer = json.loads(line)
        return str(answer["error"]) if "error" in answer else base64.b64decode(answer.get("definition", ""))
