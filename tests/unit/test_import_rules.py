"""The walls of the house: who may import whom, what a start may load, and what the library may not say."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "cogkit"

FOUNDATION = {
    "errors",
    "atomic_file",
    "output_file",
    "fast_dataclass",
    "go_bool",
    "hosts",
    "temporary_folder",
    "__version__",
}
"""What every layer may use, and which uses nothing but itself."""
MAY_IMPORT = {
    "oci": set[str](),
    "registry": {"oci"},
    "buildkit": {"registry", "oci", "_proto"},
    "project": {"registry", "oci"},
    "dockerfile": {"project"},
    "weights": {"project", "registry", "oci"},
    "builders": {"buildkit", "registry", "oci"},
    "building": {"builders", "weights", "dockerfile", "project", "buildkit", "registry", "oci"},
    "running": {"building", "builders", "weights", "dockerfile", "project", "buildkit", "registry", "oci"},
    "cli": {"running", "building", "builders", "weights", "dockerfile", "project", "buildkit", "registry", "oci"},
    "__main__": {"cli"},
}
"""For each part of the package the other parts that it may import, at the top or inside a function."""

GRPC_FILES = {"buildkit.client", "buildkit.connection", "buildkit.solve", "buildkit.gateway", "buildkit.error_details"}
"""The only modules, or packages, that know grpcio."""
PURE = ("buildkit.transport", "buildkit.fsutil", "buildkit.ssh.agent", "buildkit.llb", "running.mux")
"""State machines and plain functions: bytes in, events out."""
TOUCH_THE_DISK = {"buildkit.fsutil.walk", "buildkit.fsutil.follow", "buildkit.fsutil.diskwriter"}
"""What of `PURE` reads and writes files."""
IO_MODULES = {"asyncio", "socket", "subprocess", "selectors", "threading", "ssl", "urllib.request"}
SHARED_BY_SERVICES = {"buildkit.session.services.unary"}

MODULES_OF_AN_UNCHANGED_BUILD = 500
"""Most modules that a build of a Dockerfile has loaded when it connects.  A budget: lower it when you can."""


def modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if not name.startswith("_proto"):
            yield name.removesuffix(".__init__") or "__init__", path


@cache
def imports(path: Path) -> frozenset[str]:
    """Everything that a file imports, by full name, wherever in it; what is for type checkers as well."""
    found = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(found)


def imported_parts(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("cogkit.")}


def is_in(name: str, parts: set[str] | tuple[str, ...]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


@pytest.mark.parametrize("name, path", [pytest.param(*each, id=each[0]) for each in modules()])
def test_a_module_imports_only_what_its_part_may(name: str, path: Path) -> None:
    part = name.split(".")[0]
    allowed = FOUNDATION | {part} | MAY_IMPORT.get(part, set())
    assert imported_parts(path) <= allowed, f"cogkit.{name} imports {imported_parts(path) - allowed}"


def test_every_part_of_the_package_has_its_rule() -> None:
    parts = {name.split(".")[0] for name, _ in modules()} - {"__init__"}
    assert parts <= FOUNDATION | MAY_IMPORT.keys()


def test_only_the_client_core_knows_grpcio() -> None:
    knowing = {name for name, path in modules() if any(each.split(".")[0] == "grpc" for each in imports(path))}
    assert knowing and all(is_in(name, GRPC_FILES) for name in knowing), knowing


def test_only_the_library_knows_protobuf() -> None:
    knowing = {
        name
        for name, path in modules()
        if any(each.startswith(("google.protobuf", "cogkit._proto")) for each in imports(path))
    }
    assert knowing and all(name.startswith("buildkit.") for name in knowing), knowing


def test_protocol_cores_do_no_input_or_output() -> None:
    faults = {
        (name, each)
        for name, path in modules()
        if is_in(name, PURE) and name not in TOUCH_THE_DISK
        for each in imports(path)
        if is_in(each, IO_MODULES)
    }
    assert not faults


def test_services_of_the_session_do_not_know_each_other() -> None:
    services = {name for name, _ in modules() if name.startswith("buildkit.session.services.")} - SHARED_BY_SERVICES
    for name, path in modules():
        if name in services:
            others = {each.removeprefix("cogkit.") for each in imports(path)}
            known = {other for other in services - {name} if any(is_in(each, (other,)) for each in others)}
            assert not known, f"{name} imports {known}"


def test_the_library_says_no_word_of_a_flag() -> None:
    flag = re.compile(r"(?<![\w-])--(addr|builder|tls\w*|ssh|secret|output|push|tag|file|context|cache-\w+|load)\b")
    said = []
    for name, path in modules():
        # The address's own programs (ssh, kubectl …) have flags of theirs.
        if name.split(".")[0] in ("buildkit", "registry", "oci") and not name.endswith("__main__"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    texts = [
                        part.value
                        for keyword in node.keywords
                        if keyword.arg in ("hint", "message")
                        for part in ast.walk(keyword.value)
                        if isinstance(part, ast.Constant) and isinstance(part.value, str)
                    ]
                    texts += [
                        part.value
                        for argument in node.args[:1]
                        if _is_an_error(node)
                        for part in ast.walk(argument)
                        if isinstance(part, ast.Constant) and isinstance(part.value, str)
                    ]
                    said += [f"{name}:{node.lineno}: {text}" for text in texts if flag.search(text)]
    assert not said, "\n".join(said)


def _is_an_error(call: ast.Call) -> bool:
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return called.endswith("Error")


_LIGHT = """
import sys
import {module}
print(*sorted(name for name in sys.modules if name.split(".")[0] in {heavy!r}))
"""


@pytest.mark.parametrize(
    "module, heavy",
    [
        ("cogkit.cli.main", ("grpc", "google", "yaml", "asyncio", "urllib3", "rich", "cryptography", "platformdirs")),
        ("cogkit.buildkit", ("grpc", "google", "asyncio", "urllib3", "typer", "cryptography")),
        ("cogkit.cli.build", ("grpc", "google", "yaml", "urllib3", "libcst", "cryptography")),
    ],
)
def test_importing_it_does_not_load(module: str, heavy: tuple[str, ...]) -> None:
    program = _LIGHT.format(module=module, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == ""


_CONNECTING = """
import sys
from cogkit.buildkit.connection import Connection
from cogkit.cli.main import main

async def check(self, *_, **__):
    print("modules", len(sys.modules))
    heavy = {"urllib3", "libcst", "cryptography", "yaml", "tomlkit", "fastjsonschema", "platformdirs"}
    print("heavy", *sorted(heavy & sys.modules.keys()))
    raise KeyboardInterrupt

Connection.check = check
main(["build", "--addr", "unix:///nowhere", sys.argv[1]])
"""


def test_an_unchanged_build_loads_no_more_than_its_budget(tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    done = subprocess.run(
        [sys.executable, "-c", _CONNECTING, str(tmp_path)], capture_output=True, text=True, timeout=120, check=False
    )
    counted = re.search(r"^modules (\d+)$", done.stdout, re.MULTILINE)
    assert counted, done.stderr
    assert int(counted[1]) <= MODULES_OF_AN_UNCHANGED_BUILD
    assert "heavy\n" in done.stdout, done.stdout
