"""The image ID and the metadata: refused where there will be none, and whole where there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogkit.building.result_files import ResultFiles
from cogkit.errors import OutputError, UsageError


def test_an_id_is_refused_where_no_image_is_made(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--iidfile writes the ID of an image, and no output is one"):
        ResultFiles(tmp_path / "id", None).check(makes_image=False)
    ResultFiles(None, tmp_path / "metadata").check(makes_image=False)
    ResultFiles(tmp_path / "id", tmp_path / "metadata").check(makes_image=True)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("files", [(True, False, False), (False, True, False), (False, False, True)])
def test_their_folder_is_not_made(tmp_path: Path, files: tuple[bool, bool, bool]) -> None:
    paths = [tmp_path / "missing" / "file" if wanted else None for wanted in files]
    with pytest.raises(OutputError, match=f"'{tmp_path}/missing' does not exist"):
        ResultFiles(*paths).check()


def test_only_the_id_is_forgotten_before_a_build(tmp_path: Path) -> None:
    files = ResultFiles(tmp_path / "id", tmp_path / "metadata")
    files.write("sha256:1", {"a": 1})
    assert (tmp_path / "id").read_text() == "sha256:1"
    files.forget()
    assert [path.name for path in tmp_path.iterdir()] == ["metadata"]
    files.write(None, {})
    assert (tmp_path / "id").read_text() == ""


def test_the_ref_is_written_and_forgotten_before_the_next_build(tmp_path: Path) -> None:
    files = ResultFiles(None, None, tmp_path / "ref")
    files.check(makes_image=False)
    files.write(None, {}, "abc")
    assert (tmp_path / "ref").read_text() == "abc"
    files.forget()
    assert list(tmp_path.iterdir()) == []
