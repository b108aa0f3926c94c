"""``cogkit context`` tells the truth: what it lists is what a build sends."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit

DOCKERFILE = "FROM scratch\nCOPY . /\n"


@pytest.mark.parametrize(
    "ignore",
    [
        "",
        "*.log\n**/node_modules\n",
        "*\n!src\n!Dockerfile\nsrc/**/*.log\n",
        "src\n!src/**/keep.log\n",
        "src/*\n!src/a\nsrc/a/empty\n",
        "!.cog\n**/*.py\n",
    ],
)
def test_the_report_lists_what_a_build_receives(
    run_cogkit: RunCogkit, context_tree: MakeTree, tmp_path: Path, ignore: str
) -> None:
    project = context_tree(
        {
            "Dockerfile": DOCKERFILE,
            ".dockerignore": ignore,
            "a.log": "1",
            "src/main.py": "22",
            "src/a/keep.log": "333",
            "src/a/other.log": "4444",
            "src/node_modules/x/y.js": "55555",
            ".cog/hidden": "6",
            "sub/.cog/shown": "7",
        }
    )
    (project / "src/a/empty").mkdir()
    report = json.loads(run_cogkit("context", project, "--json").stdout)
    done = run_cogkit("build", project, "-o", f"type=local,dest={tmp_path}/out")
    assert done.returncode == 0, done.stderr
    files, folders = set(), set()
    for folder, names, leaves in os.walk(tmp_path / "out"):
        base = Path(folder).relative_to(tmp_path / "out")
        files |= {str(base / name) for name in leaves}
        folders |= {str(base / name) for name in names}
    assert {file["path"] for file in report["files"]} == files
    assert {folder["path"] for folder in report["folders"]} == folders
    assert report["hidden"] == [".cog"]
