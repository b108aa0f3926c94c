"""Who types a word of docker, buildx, buildctl or cog is told ours."""

from __future__ import annotations

import re

import pytest
from typer.main import get_command

from cogkit.cli.main import app, main
from cogkit.cli.ui.peers import COMMANDS, FLAGS, SUBCOMMANDS

ROOT = get_command(app)
HINTS = {*COMMANDS.values(), *FLAGS.values(), *(hint for group in SUBCOMMANDS.values() for hint in group.values())}


def names_of_flags(command: object) -> set[str]:
    with ROOT.make_context("cogkit", [], resilient_parsing=True) as ctx:
        return {name for parameter in command.get_params(ctx) for name in parameter.opts}  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_of_a_peer_gets_our_way(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "x"]) == 2
    assert capsys.readouterr().err == f"error: no such command '{name}'\n  hint: {COMMANDS[name]}\n"


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in SUBCOMMANDS.items() for name in names])
def test_a_subcommand_of_a_peer_gets_our_way(group: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([group, name]) == 2
    assert capsys.readouterr().err == f"error: no such command '{name}'\n  hint: {SUBCOMMANDS[group][name]}\n"


@pytest.mark.parametrize("name", FLAGS)
def test_a_flag_of_a_peer_gets_our_way(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", name]) == 2
    assert capsys.readouterr().err == f"error: no such option: {name}\n  hint: {FLAGS[name]}\n"


def test_a_slip_of_the_finger_gets_the_nearest_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--tagz", "x"]) == 2
    assert "--tag" in capsys.readouterr().err
    assert main(["pusk"]) == 2
    assert "Did you mean 'push'?" in capsys.readouterr().err


@pytest.mark.parametrize("hint", sorted(HINTS))
def test_a_hint_names_what_there_is(hint: str) -> None:
    flags = names_of_flags(ROOT.commands["build"]) | names_of_flags(ROOT.commands["exec"])  # type: ignore[attr-defined]
    flags |= names_of_flags(ROOT.commands["du"])  # type: ignore[attr-defined]
    assert {flag for flag in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", hint) if flag != "--mount"} <= flags
    for words in re.findall(r"\bcogkit ([a-z]+(?: [a-z]+)?)", hint):
        name, _, further = words.partition(" ")
        if name in ("keeps", "shares", "builds"):
            continue
        command = ROOT.commands[name]  # type: ignore[attr-defined]
        assert not further or not hasattr(command, "commands") or further in {*command.commands, "shows", "looks"}
