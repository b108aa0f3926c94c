"""The golden Dockerfiles: their bytes, and what must be true of every one of them."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = sorted(path.name for path in (GOLDEN / "cases").iterdir())


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_regenerate", GOLDEN / "regenerate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


golden = _load()


def text_of(name: str) -> str:
    return (GOLDEN / "cases" / name / "Dockerfile").read_text()


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("name", CASES)
def test_a_golden_case_gives_the_same_bytes_as_ever(name: str) -> None:
    # If the change is meant: python tests/golden/regenerate.py, and read the diff.
    assert golden.run_case(name).files == golden.expected_files(name)


@pytest.mark.parametrize("name", CASES)
def test_a_case_gives_the_same_bytes_wherever_and_whenever_it_is(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "some where" / "else"
    source = GOLDEN / "cases" / name / "project"
    # Made in another order, with other times and modes, reached through a link, from another folder and time zone.
    for path in sorted(source.rglob("*"), reverse=True):
        if path.is_file():
            target = elsewhere / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            os.utime(target, (1, 1))
            target.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(elsewhere)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Pacific/Chatham")
    monkeypatch.setenv("LC_ALL", "C")
    assert golden.run_case(name, link).files == golden.expected_files(name)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_fetched_from_hosts_that_nobody_named(name: str) -> None:
    # Registries of packages and images are all a build needs, and where they are is not the Dockerfile's business.
    hosts = set(re.findall(r"https?://([^/\s\"]+)", text_of(name)))
    assert hosts <= {"example.com", "files.example.com"}
    assert "syntax=" not in text_of(name)


@pytest.mark.parametrize("name", CASES)
def test_what_is_copied_from_cog_build_is_staged_and_the_other_way_round(name: str) -> None:
    result = golden.run_case(name)
    copied = set(re.findall(r"^COPY --from=cog_build (\S+?)/? ", result.generated.dockerfile, re.MULTILINE))
    staged = {file.path.split("/")[0] for file in result.generated.files}
    bundle = set(re.findall(r"^COPY --from=cog_build (\S+) \.cog/$", result.generated.dockerfile, re.MULTILINE))
    assert copied - bundle == staged
    assert ("cog_build" in result.generated.contexts) == bool(copied)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("ca-cert") or name == "everything"])
def test_the_certificate_is_installed_before_the_first_network_access_of_each_stage(name: str) -> None:
    for stage in text_of(name).split("FROM ")[1:]:
        network = re.search(r"^RUN .*(apt-get|pip install|uv )", stage, re.MULTILINE)
        if network and not stage.startswith("cog_model"):
            assert 0 < stage.find("update-ca-certificates") < network.start()


def test_uv_is_pinned_wherever_it_comes_from() -> None:
    for name in CASES:
        assert re.search(r"uv==0\.9\.26$|astral-sh/uv:0\.9\.26 ", text_of(name), re.MULTILINE), name


def test_pip_freeze_does_not_depend_on_the_source() -> None:
    for name in CASES:
        text = text_of(name)
        if "cog_pip_freeze" in text:
            before = text[: text.index("pip freeze")]
            assert "COPY . /src" not in before
            assert "--from=cog_weights" not in before
