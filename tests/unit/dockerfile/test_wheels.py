"""COG_SDK_WHEEL, COGLET_WHEEL and sdk_version: which package they stand for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogkit.dockerfile import Wheel, coglet_wheel, sdk_wheel
from cogkit.errors import ConfigError


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    for name in (
        "cog-0.22.0-py3-none-any.whl",
        "coglet-0.22.0-cp310-abi3-manylinux_2_17_x86_64.whl",
        "coglet-0.22.0-cp310-abi3-manylinux_2_17_aarch64.whl",
    ):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_nothing_said_is_the_latest_release() -> None:
    assert sdk_wheel("") == Wheel("cog")
    assert coglet_wheel("  ") == Wheel("coglet")
    assert sdk_wheel("").requirement == "cog"


@pytest.mark.parametrize(
    ("value", "requirement"),
    [("pypi", "cog"), ("PyPI", "cog"), ("pypi:0.22.0", "cog==0.22.0"), ("pypi:0.22.0-rc1", "cog==0.22.0rc1")],
)
def test_pypi_with_or_without_version(value: str, requirement: str) -> None:
    assert sdk_wheel(value).requirement == requirement


def test_the_variable_goes_before_the_config() -> None:
    assert sdk_wheel("pypi:0.21.0", "0.20.0").value == "0.21.0"
    assert sdk_wheel("", "0.20.0").value == "0.20.0"


def test_the_latest_prerelease_is_not_pinned() -> None:
    wheel = sdk_wheel("", "prerelease")
    assert (wheel.requirement, wheel.is_prerelease, wheel.is_exact) == ("cog", True, False)
    assert str(wheel) == "latest pre-release cog from PyPI"


@pytest.mark.parametrize(
    ("version", "is_prerelease"),
    [("0.22.0", False), ("0.22.0a1", True), ("0.22.0-beta2", True), ("0.22.0rc1", True), ("0.22.0.dev1", True)],
)
def test_prereleases_are_told_by_either_notation(version: str, is_prerelease: bool) -> None:
    assert sdk_wheel("", version).is_prerelease is is_prerelease


@pytest.mark.parametrize("version", ["0.15.9", "0.9", "0.15.0a1"])
def test_sdks_that_cannot_work_are_refused(version: str) -> None:
    if version == "0.9":  # not major.minor.patch: left to pip, as in Cog
        assert sdk_wheel("", version).value == "0.9"
        return
    with pytest.raises(ConfigError, match=f"cog version {version} is below the minimum required version 0.16.0"):
        sdk_wheel("", version)


def test_an_address_is_taken_as_it_is() -> None:
    url = "https://files.example.com/cog-0.22.0-py3-none-any.whl"
    assert sdk_wheel(url) == Wheel("cog", "url", url)


def test_a_file_is_found_from_the_folder_given(wheels: Path) -> None:
    name = "cog-0.22.0-py3-none-any.whl"
    assert sdk_wheel(name, relative_to=wheels).value == str(wheels / name)
    assert sdk_wheel(str(wheels / name)).value == str(wheels / name)


def test_a_folder_gives_the_wheel_for_the_architecture(wheels: Path) -> None:
    assert sdk_wheel(str(wheels)).value.endswith("cog-0.22.0-py3-none-any.whl")
    assert coglet_wheel(str(wheels)).value.endswith("x86_64.whl")
    assert coglet_wheel(str(wheels), architecture="arm64").value.endswith("aarch64.whl")


def test_a_path_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"COGLET_WHEEL: path not found: /nonexistent/path/coglet\.whl"):
        coglet_wheel("/nonexistent/path/coglet.whl")


def test_a_folder_without_wheel_or_with_several_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no wheel matching 'cog-\*\.whl' found"):
        sdk_wheel(str(tmp_path))
    for version in ("0.21.0", "0.22.0"):
        (tmp_path / f"cog-{version}-py3-none-any.whl").write_bytes(b"")
    with pytest.raises(ConfigError, match="specify the exact file path"):
        sdk_wheel(str(tmp_path))


def test_a_folder_with_wheels_for_other_platforms_only_is_told(tmp_path: Path) -> None:
    (tmp_path / "coglet-0.22.0-cp310-abi3-manylinux_2_17_aarch64.whl").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"no wheel for platform amd64 .* \(found 1 for other platforms\)"):
        coglet_wheel(str(tmp_path))


def test_a_version_cannot_smuggle_in_a_flag() -> None:
    with pytest.raises(ConfigError, match="is not a version"):
        sdk_wheel("pypi:0.22.0 --index-url http://evil")
