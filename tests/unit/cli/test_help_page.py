"""The help is whole, however narrow the terminal."""

from __future__ import annotations

import pytest

from cogkit.cli.main import main


@pytest.mark.parametrize("arguments", [["--help"], ["builder", "--help"], ["history", "--help"]], ids=" ".join)
def test_no_summary_of_a_command_is_cut(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "Commands:" in shown
    assert "..." not in shown.partition("Commands:")[2]


def test_the_lack_of_a_builder_is_all_that_is_said(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path_factory.mktemp("none")
    (folder / "Dockerfile").write_text("FROM scratch\n")
    monkeypatch.chdir(folder)
    assert main(["build", "--addr", f"unix://{folder}/none.sock", "--progress", "plain"]) == 3
    shown = capsys.readouterr().err
    assert "error: " in shown and "no output was asked for" not in shown
