"""On which kind of filesystem a path is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cogkit.buildkit.fsutil import filesystem_type as module
from cogkit.buildkit.fsutil.filesystem_type import filesystem_type, is_made_up

TABLE = rb"""
20 1 8:1 / / rw - ext4 /dev/sda1 rw
21 20 0:5 / /TMP/mnt rw shared:1 - overlay overlay rw
22 21 0:6 / /TMP/mnt/with\040space rw - sysfs sysfs rw
23 20 0:7 / /TMP/mnt rw - tmpfs tmpfs rw
broken
"""


@pytest.mark.parametrize(
    ("path", "type"),
    [("mnt", "tmpfs"), ("mnt/x/y", "tmpfs"), ("mnt/with space/x", "sysfs"), ("mntx", "ext4"), ("", "ext4")],
)
def test_the_innermost_mount_that_is_seen_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, type: str
) -> None:
    root = os.path.realpath(tmp_path)
    table = tmp_path / "mountinfo"
    table.write_bytes(TABLE.replace(b"/TMP", os.fsencode(root)))
    monkeypatch.setattr(module, "_MOUNTS", str(table))
    assert filesystem_type(os.fsencode(f"{root}/{path}")) == type


def test_where_nothing_is_known_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOUNTS", str(tmp_path / "gone"))
    assert filesystem_type(b"/proc") is None


def test_files_of_nobody_are_told_from_others() -> None:
    assert is_made_up("proc") and is_made_up("sysfs") and not is_made_up("ext4") and not is_made_up("nfs4")


def test_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = os.path.realpath(tmp_path)
    table = tmp_path / "mountinfo"
    table.write_bytes(TABLE.replace(b"/TMP", os.fsencode(root)))
    monkeypatch.setattr(module, "_MOUNTS", str(table))
    (tmp_path / "link").symlink_to("mnt/x")
    (tmp_path / "mnt").mkdir()
    (tmp_path / "way").symlink_to("mnt")
    assert filesystem_type(os.fsencode(tmp_path / "link")) == "ext4"
    assert filesystem_type(os.fsencode(tmp_path / "way" / "x")) == "tmpfs"
