"""What flags of running commands may say: ports, devices, variables."""

from __future__ import annotations

import pytest

from cogkit.cli.running_options import parse_env
from cogkit.errors import UsageError
from cogkit.running.devices import parse_gpus
from cogkit.running.image import Image
from cogkit.running.ports import Port, parse_port


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("8000", Port("127.0.0.1", 8000, 8000)),
        ("0.0.0.0:80", Port("0.0.0.0", 80, 80)),
        ("[::1]:8000", Port("::1", 8000, 8000)),
        ("::1:8000", Port("::1", 8000, 8000)),
    ],
)
def test_a_port(value: str, expected: Port) -> None:
    assert parse_port(value) == expected


@pytest.mark.parametrize("value", ["", "x", "0", "65536", "[::1", "[::1]", "[]:80", ":80", "80:x", "-1", "1e3"])
def test_what_is_no_port(value: str) -> None:
    with pytest.raises(UsageError, match="invalid port"):
        parse_port(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("all", ("nvidia.com/gpu=all",)),
        ("2", ("nvidia.com/gpu=0", "nvidia.com/gpu=1")),
        ('"device=0,3"', ("nvidia.com/gpu=0", "nvidia.com/gpu=3")),
        ("vendor.com/net=a,vendor.com/net=b", ("vendor.com/net=a", "vendor.com/net=b")),
    ],
)
def test_gpus(value: str, expected: tuple[str, ...]) -> None:
    assert parse_gpus(value) == expected


@pytest.mark.parametrize("value", ["", "device=", "some", "device=0,,1", "a=b"])
def test_what_names_no_device(value: str) -> None:
    with pytest.raises(UsageError, match="names no devices"):
        parse_gpus(value)


def test_variables() -> None:
    environ = {"HERE": "mine"}
    assert parse_env(["A=1", "B=", "C=x=y", "HERE", "MISSING"], environ) == {
        "A": "1",
        "B": "",
        "C": "x=y",
        "HERE": "mine",
    }
    with pytest.raises(UsageError, match="there is no name"):
        parse_env(["=x"])


def test_an_image_says_how_it_is_run() -> None:
    config = {
        "Env": ["PATH=/bin", "A=b=c", "odd"],
        "Entrypoint": ["/sbin/tini", "--"],
        "Cmd": ["python", "-m", "x"],
        "WorkingDir": "/src",
        "Labels": {"run.cog.config": '{"build": {"gpu": true}}', "run.cog.openapi_schema": '{"a": 1}'},
    }
    image = Image.of_config(None, {"config": config})  # type: ignore[arg-type]
    assert image.args(()) == ["python", "-m", "x"]
    assert image.args(("sh",)) == ["sh"]
    assert image.env == {"PATH": "/bin", "A": "b=c"}
    assert (image.wants_gpu, image.is_of_cog, image.schema) == (True, True, {"a": 1})
    plain = Image.of_config(None, {"config": {"Entrypoint": ["run", "it"], "Labels": None}})  # type: ignore[arg-type]
    assert plain.args(("now",)) == ["run", "it", "now"]
    assert (plain.wants_gpu, plain.is_of_cog, plain.schema, plain.working_dir) == (False, False, None, "/")
