"""The Go oracle as a process: builds it when its sources changed, asks it, and speaks the protocol with it.

See README.md beside this file.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, Any

SOURCE = Path(__file__).parent
BINARY = SOURCE.parent.parent / ".tools" / "bin" / "oracle"


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
    made = BINARY.with_name(f"oracle.{os.getpid()}")
    done = subprocess.run(
        ["go", "build", "-o", str(made), "."], cwd=SOURCE, capture_output=True, text=True, timeout=600, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the oracle cannot be built:\n{done.stderr}")
    made.replace(BINARY)
    return BINARY


def encode(texts: Iterable[bytes] | None) -> list[str] | None:
    return None if texts is None else [base64.b64encode(text).decode() for text in texts]


class Oracle:
    """The oracle as a server of questions; one at a time."""

    def __init__(self, binary: Path):
        # patternmatcher's scanner writes complaints about NUL and invalid UTF-8 to stderr.
        self._process = subprocess.Popen(
            [binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)

    def ask(self, op: str, **arguments: Any) -> Any:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        stdin.flush()
        answer = stdout.readline()
        assert answer, "the oracle died"
        return json.loads(answer)

    def match(self, patterns: Sequence[bytes], paths: Sequence[bytes]) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask("match", patterns=encode(patterns), paths=encode(paths))
        return answer

    def ignore(self, content: bytes) -> list[bytes] | str:
        """The patterns of an ignore file, or the error."""
        answer = self.ask("ignore", content=base64.b64encode(content).decode())
        return answer["error"] if "error" in answer else [base64.b64decode(p) for p in answer["patterns"] or ()]

    def paths(self, patterns: Sequence[bytes], paths: Sequence[bytes]) -> dict[str, Any]:
        """``clean``, ``dir`` and ``base`` of each path; for each pattern ``match`` with one letter (tfe) per path."""
        answer = self.ask("paths", patterns=encode(patterns), paths=encode(paths))
        for key in ("clean", "dir", "base"):
            answer[key] = [base64.b64decode(text) for text in answer[key] or ()]
        return dict(answer)

    def walk(
        self,
        root: bytes,
        *,
        include: Sequence[bytes] | None = None,
        exclude: Sequence[bytes] | None = None,
        follow: Sequence[bytes] | None = None,
        layered: bool = False,
    ) -> dict[str, Any]:
        answer: dict[str, Any] = self.ask(
            "walk",
            root=base64.b64encode(root).decode(),
            include=encode(include),
            exclude=encode(exclude),
            follow=encode(follow),
            layered=layered,
        )
        return answer

    def follow(self, root: bytes, paths: Sequence[bytes]) -> list[bytes] | str | None:
        """What follow-paths resolve to: paths, None for everything, or the error."""
        answer = self.ask("follow", root=base64.b64encode(root).decode(), follow=encode(paths))
        if "error" in answer:
            return str(answer["error"])
        return None if answer["paths"] is None else [base64.b64decode(path) for path in answer["paths"]]


class Peer:
    """The other end of a transfer: ``oracle serve-send DIR`` or ``oracle receive DIR``."""

    def __init__(self, binary: Path, *arguments: str | bytes):
        self._process = subprocess.Popen(
            [binary, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    @property
    def input(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def output(self) -> IO[bytes]:
        assert self._process.stdout is not None
        return self._process.stdout

    def send(self, packet: bytes) -> None:
        self.input.write(len(packet).to_bytes(4, "big") + packet)
        self.input.flush()

    def receive(self) -> bytes | None:
        """The next packet, or None when the peer has ended."""
        head = self.output.read(4)
        return self.output.read(int.from_bytes(head, "big")) if len(head) == 4 else None

    def finish(self) -> tuple[int, str]:
        """Close our side and wait; exit code and stderr."""
        self.input.close()
        assert self._process.stderr is not None
        complaint = self._process.stderr.read().decode("utf-8", "replace")
        return self._process.wait(timeout=30), complaint

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=60)
