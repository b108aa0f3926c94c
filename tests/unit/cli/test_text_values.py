"""Arguments that are not UTF-8: a path may be any bytes, what must be text gets one sentence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cogkit.building import build as builder
from cogkit.building.build import BuildResult
from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions
from cogkit.cli.main import main

BAD = os.fsdecode(b"a\xff")


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[BuildOptions]:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / BAD).mkdir()
    (tmp_path / BAD / "Dockerfile").write_text("FROM scratch\n")
    monkeypatch.chdir(tmp_path)
    for name in ("BUILDKIT_HOST", "SOURCE_DATE_EPOCH", "BUILDKIT_PROGRESS"):
        monkeypatch.delenv(name, raising=False)
    seen: list[BuildOptions] = []

    async def build(options: BuildOptions, observer: BuildObserver) -> BuildResult:
        seen.append(options)
        return BuildResult("ref", (), None, None, {})

    monkeypatch.setattr(builder, "build", build)
    return seen


@pytest.mark.parametrize(
    "arguments",
    [
        ("--build-arg", f"A={BAD}"),
        ("--build-arg", f"{BAD}=b"),
        ("--label", f"l={BAD}"),
        ("--target", BAD),
        ("--cache-to", f"type=registry,ref={BAD}"),
        ("--cache-from", f"type=registry,ref={BAD}"),
        ("--cache-from", f"type=local,src=x,tag={BAD}"),
        ("--add-host", f"{BAD}:127.0.0.1"),
        ("--call", BAD),
        ("--attest", f"type=sbom,generator={BAD}"),
        ("--sbom", f"generator={BAD}"),
        ("--provenance", f"mode={BAD}"),
        ("--cgroup-parent", BAD),
        ("--addr", f"tcp://{BAD}:1"),
        ("--addr", BAD),
        ("-o", f"type=oci,dest=x,foo={BAD}"),
        ("-o", f"type=image,name={BAD}"),
        ("-t", BAD),
        ("--platform", BAD),
        ("--network", BAD),
        ("--no-cache-filter", BAD),
        ("--build-context", f"{BAD}=docker-image://x"),
        ("--build-context", f"x=docker-image://{BAD}"),
        ("--secret", f"id={BAD},env=HOME"),
        ("--ulimit", f"{BAD}=1"),
        ("--allow", BAD),
        ("--uv-image", BAD),
    ],
)
def test_what_must_be_text_is_refused_in_one_sentence(
    arguments: tuple[str, str], built: list[BuildOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(["build", ".", *arguments])
    shown = capsys.readouterr().err
    if arguments[0] == "--addr" and built:
        # Parsed when it is dialled; the sentence is the address's own.
        from cogkit.buildkit.connect.address import Address
        from cogkit.errors import UsageError

        with pytest.raises(UsageError, match=r"is not UTF-8|has no scheme"):
            Address.parse(arguments[1])
        return
    assert code == 2, shown
    assert not built
    assert "internal error" not in shown
    assert "Traceback" not in shown


def test_a_value_of_the_environment_is_text_as_well(
    built: list[BuildOptions], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FROM_OUTSIDE", BAD)
    assert main(["build", ".", "--build-arg", "FROM_OUTSIDE"]) == 2
    assert r"--build-arg: 'a\\xff' is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ("--context", BAD),
        ("--build-context", f"x={BAD}"),
        ("-o", f"type=oci,dest={BAD}.tar"),
        ("-o", f"type=local,dest={BAD}-out"),
        ("--iidfile", f"{BAD}.id"),
        ("--metadata-file", f"{BAD}.json"),
        ("--cache-to", f"type=local,dest={BAD}-cache"),
        ("--secret", f"id=x,src={BAD}/Dockerfile"),
        ("--addr", f"unix:///{BAD}"),
    ],
)
def test_a_path_may_be_any_bytes(arguments: tuple[str, ...], built: list[BuildOptions]) -> None:
    where = () if arguments[0] == "--context" else (".",)
    assert main(["build", *where, *arguments]) == 0
    assert len(built) == 1
