"""Boolean flags with a value, as Go's flag libraries take them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from typer.main import get_command

from cogkit.cli.boolean_values import Flags, take_out_values
from cogkit.cli.main import app, main
from cogkit.errors import UsageError

FLAGS = Flags({"--push": "push", "--pull": "pull", "-q": "quiet"}, frozenset({"--tag", "-t", "-o"}))


@pytest.mark.parametrize(
    ("args", "left", "denied"),
    [
        (["--push=true"], ["--push"], set()),
        (["--push=1", "-q=T"], ["--push", "-q"], set()),
        (["--push=false"], [], {"push"}),
        (["--push=0", "-q=F", "dir"], ["dir"], {"push", "quiet"}),
        (["--push", "--push=false"], [], {"push"}),
        (["--push=false", "--push"], ["--push", "--push"], set()),
        (["--push=false", "--pull"], ["--pull"], {"push"}),
        (["--tag=x", "--tag", "--push=false"], ["--tag=x", "--tag", "--push=false"], set()),
        (["-t", "--push=no"], ["-t", "--push=no"], set()),
        (["-qt", "--push=no"], ["-qt", "--push=no"], set()),
        (["-tq", "--push=no!"], None, None),
        (["--", "--push=false"], ["--", "--push=false"], set()),
        (["--unknown=false"], ["--unknown=false"], set()),
        (["--tag"], ["--tag"], set()),
    ],
)
def test_values_are_taken_from_boolean_flags_and_from_nothing_else(
    args: list[str], left: list[str] | None, denied: set[str] | None
) -> None:
    if left is None:
        with pytest.raises(UsageError):
            take_out_values(args, FLAGS)
    else:
        assert take_out_values(args, FLAGS) == (left, denied)


def test_what_follows_a_command_is_the_commands() -> None:
    args = ["--push=false", "run", "--push=false"]
    assert take_out_values(args, FLAGS, interspersed=False) == (["run", "--push=false"], {"push"})


def _switches() -> list[tuple[str, str]]:
    root = get_command(app)
    commands: Mapping[str, object] = getattr(root, "commands", {})
    context = root.make_context("cogkit", [], resilient_parsing=True)
    return [
        (name, spelling)
        for name, command in commands.items()
        for spelling in Flags.of(command.get_params(context)).switches  # type: ignore[attr-defined]
        if spelling.startswith("--")
    ]


@pytest.mark.parametrize(("command", "switch"), _switches())
def test_every_boolean_flag_of_every_command_refuses_only_what_is_no_boolean(
    command: str, switch: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, f"{switch}=false", "--help"]) == 0
    capsys.readouterr()
    assert main([command, f"{switch}=maybe"]) == 2
    assert f"error: a flag: {switch}=maybe is neither true nor false" in capsys.readouterr().err


def test_a_flag_said_to_be_false_is_so_whatever_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COGKIT_DEBUG", "1")
    assert main(["build", "--context", "/no/such/folder"]) == 2
    assert "Traceback" in capsys.readouterr().err
    assert main(["--debug=false", "build", "--context", "/no/such/folder"]) == 2
    assert "Traceback" not in capsys.readouterr().err
