"""The wheel and the source archive: what is in them, that they work alone, and that a user's program type-checks."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

PROGRAM = """
import asyncio
from pathlib import Path

from cogkit.buildkit import AsyncClient, BuildError, Client, SolveResult, dockerfile, image, llb, tar


def built(address: str) -> str | None:
    with Client.connect(address) as client:
        with client.start(
            dockerfile(".", build_args={"A": "b"}),
            image("x", push=True),
            secrets={"token": b"bytes", "file": Path("file")},
        ) as build:
            for event in build:
                for log in event.logs:
                    print(log.data.decode())
            try:
                result: SolveResult = build.result(timeout=60)
            except BuildError as error:
                print(error.hint)
                return None
        return result.digest


async def graph() -> None:
    state = llb.image("busybox").run("make", mounts=[llb.CacheMount("/root/.cache", id="pip")])
    async with await AsyncClient.connect() as client:
        await client.build(dockerfile("."), tar("out.tar"))
    print(state)


asyncio.run(graph())
"""


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(REPOSITORY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def installed(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel installed into it."""
    folder = tmp_path_factory.mktemp("site")
    (wheel,) = archives.glob("*.whl")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(folder),
        str(wheel),
    ]
    subprocess.run(command, capture_output=True, timeout=300, check=True)
    return folder


def test_the_wheel_has_every_file_of_the_package(archives: Path) -> None:
    (wheel,) = archives.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    tracked = subprocess.run(
        ["git", "ls-files", "cogkit"], cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=True
    )
    assert set(tracked.stdout.split()) <= names
    assert "cogkit/py.typed" in names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if name.startswith(("tests", "benchmarks"))]


def test_the_source_archive_has_what_the_wheel_is_made_of(archives: Path) -> None:
    (source,) = archives.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "cogkit/py.typed"} <= names
    assert any(name.startswith("protos/") for name in names)


def test_the_command_works_where_only_the_wheel_is(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    for arguments in (["--version"], ["context", tmp_path], ["build", "--help"]):
        done = subprocess.run(
            [sys.executable, "-m", "cogkit", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_a_users_program_passes_mypy_strict(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache", "program.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
