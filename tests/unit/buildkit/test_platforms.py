"""Platforms as containerd reads and names them."""

from __future__ import annotations

import pytest

from cogkit.buildkit.platforms import Platform
from cogkit.errors import UsageError


@pytest.mark.parametrize(
    ("text", "platform"),
    [
        ("linux/amd64", Platform("linux", "amd64")),
        ("linux/arm64", Platform("linux", "arm64")),
        ("linux/arm64/v8", Platform("linux", "arm64", "v8")),
        ("linux/arm/v7", Platform("linux", "arm", "v7")),
        ("linux/arm", Platform("linux", "arm")),
        ("Linux/x86_64", Platform("linux", "amd64")),
        ("macos/aarch64", Platform("darwin", "arm64")),
        ("arm64", Platform("linux", "arm64")),
        ("armel", Platform("linux", "arm", "v6")),
        ("windows(10.0.17763+win32k+a%2Bb)/amd64", Platform("windows", "amd64", "", "10.0.17763", ("win32k", "a+b"))),
        ("unknown/strange", Platform("unknown", "strange")),
    ],
)
def test_platforms_are_read(text: str, platform: Platform) -> None:
    assert Platform.parse(text) == platform


@pytest.mark.parametrize("text", ["", "strange", "a/b/c/d", "linux/", "linux/a b", "*/amd64", "linux(/amd64"])
def test_what_is_not_a_platform_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a platform|is neither an operating system nor an architecture"):
        Platform.parse(text)


def test_an_operating_system_alone_is_on_the_processor_of_this_machine() -> None:
    assert Platform.parse("linux").architecture == Platform.default().architecture


def test_platforms_are_normalized() -> None:
    assert Platform("Linux", "aarch64", "v8").normalized() == Platform("linux", "arm64")
    assert Platform("", "arm", "7", "", ("b", "a", "b")).normalized() == Platform("linux", "arm", "v7", "", ("a", "b"))
    assert str(Platform("linux", "arm64", "v8")) == "linux/arm64/v8"
