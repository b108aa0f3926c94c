"""Generate ``cogkit/_proto`` from the .proto files beside this script (``make protos``).

Usage: ``python protos/generate.py [DESTINATION]``; the destination, by default ``cogkit/_proto``, then holds exactly
what these files and the installed grpcio-tools give.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from grpc_tools import protoc  # type: ignore[import-untyped]

PROTOS = Path(__file__).resolve().parent
PACKAGE = "cogkit/_proto"
WELL_KNOWN = Path(protoc.__file__).resolve().parent / "_proto"

INIT = '''"""Messages of the wire, generated from protos/ by ``make protos``: do not edit."""
'''


def complete(text: str) -> str:
    """Give protoc's bare ``_Mapping`` its arguments, without which ``mypy --strict`` refuses the stubs."""
    return text.replace("_Mapping]", "_Mapping[str, object]]")


def generate(destination: Path) -> None:
    """Write the modules for all .proto files to ``destination`` and remove any other generated module there.

    Raises:
        SystemExit: protoc refused a file; it has said why on stderr.
    """
    names = [f"{PACKAGE}/{proto.name}" for proto in sorted(PROTOS.glob("*.proto"))]
    with tempfile.TemporaryDirectory() as scratch:
        status = protoc.main(
            [
                "protoc",
                f"-I{PACKAGE}={PROTOS}",
                f"-I{WELL_KNOWN}",
                f"--python_out={scratch}",
                f"--pyi_out={scratch}",
                *names,
            ]
        )
        if status != 0:
            raise SystemExit(f"protoc ended with status {status}")
        made = {path.name: complete(path.read_text()) for path in (Path(scratch) / PACKAGE).iterdir()}
    made["__init__.py"] = INIT
    destination.mkdir(parents=True, exist_ok=True)
    for old in destination.glob("*_pb2.py*"):
        if old.name not in made:
            old.unlink()
    for name, text in made.items():
        (destination / name).write_text(text)


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else PROTOS.parent / PACKAGE)
