"""The generated messages in cogkit/_proto are those of protos/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
GENERATED = REPO / "cogkit" / "_proto"


def _sources(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(directory.iterdir()) if path.suffix in (".py", ".pyi")}


def test_checked_in_messages_are_what_the_proto_files_give(tmp_path: Path) -> None:
    subprocess.run([sys.executable, REPO / "protos" / "generate.py", tmp_path], check=True, timeout=60)
    fresh, kept = _sources(tmp_path), _sources(GENERATED)
    assert fresh.keys() == kept.keys()
    stale = [name for name in fresh if fresh[name] != kept[name]]
    assert not stale, f"{', '.join(stale)} differ from protos/: run `make protos`"


def test_generating_again_removes_the_modules_of_a_proto_file_that_is_gone(tmp_path: Path) -> None:
    (tmp_path / "gone_pb2.py").write_text("")
    subprocess.run([sys.executable, REPO / "protos" / "generate.py", tmp_path], check=True, timeout=60)
    assert not (tmp_path / "gone_pb2.py").exists()


def test_no_message_name_can_clash_with_that_of_another_library() -> None:
    packages = {
        line.split()[1].rstrip(";")
        for proto in (REPO / "protos").glob("*.proto")
        for line in proto.read_text().splitlines()
        if line.startswith("package ")
    }
    assert packages and all(package.startswith("cogkit.") for package in packages)
