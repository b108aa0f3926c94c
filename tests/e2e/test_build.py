"""What a whole build promises, on a real daemon: what leaves this machine, what comes back, what is left behind."""

from __future__ import annotations

import base64
import json
import os
import signal
import tarfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.conftest import MakeTree, RunCogkit, StartCogkit
from tests.real.registry import Registry
from tests.real.tree import Symlink

COPY_ALL = "FROM scratch\nCOPY . /\n"
COG_YAML = 'run: run.py:Runner\nbuild:\n  python_version: "3.11"\n'
RUN_PY = "class Runner:\n    def run(self, text: str = 'hi') -> str:\n        return text\n"


def names_in(archive: Path) -> set[str]:
    with tarfile.open(archive) as tar:
        return {member.name for member in tar}


def events(stderr: str, kind: str) -> list[dict[str, object]]:
    """All ``kind`` entries of rawjson progress."""
    lines = (json.loads(line) for line in stderr.splitlines() if line.startswith("{"))
    return [entry for line in lines for entry in line.get(kind, ())]


def logged(done: CompletedProcess[str]) -> str:
    return b"".join(base64.b64decode(str(log["data"])) for log in events(done.stderr, "logs")).decode()


def bytes_of_context(done: CompletedProcess[str]) -> int:
    """How much of the project context was sent, as the daemon counted it."""
    transfers = [each for each in events(done.stderr, "statuses") if str(each["id"]).startswith("transferring context")]
    return max((int(str(each["current"])) for each in transfers), default=0)


def succeeded(done: CompletedProcess[str]) -> CompletedProcess[str]:
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.parametrize(
    "dockerignore",
    [None, "!.cog\n", "*\n!.cog/**\n!Dockerfile\n", "!.cog/secret\n!**/secret\n"],
    ids=["none", "asks", "asks-only", "asks-for-the-file"],
)
def test_cog_dir_never_leaves_even_when_dockerignore_asks(
    dockerignore: str | None, context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    tree = {"Dockerfile": COPY_ALL, ".cog/secret": "s", ".cog-backup/kept": "k", "sub/.cog/kept": "k"}
    project = context_tree({**tree, **({".dockerignore": dockerignore} if dockerignore else {})})
    succeeded(run_cogkit("build", project, "-o", f"type=tar,dest={tmp_path}/out.tar"))
    sent = names_in(tmp_path / "out.tar")
    assert not {name for name in sent if name == ".cog" or name.startswith(".cog/")}
    if dockerignore is None:
        assert {".cog-backup/kept", "sub/.cog/kept"} <= sent


@pytest.mark.parametrize("source", [".cog", ".cog/secret", "link", "link/secret", ".co*", "deep/../.cog/secret"])
def test_no_copy_instruction_reaches_into_the_cog_dir(
    source: str, context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    project = context_tree(
        {
            "Dockerfile": f"FROM scratch\nCOPY Dockerfile {source} /out/\n",
            ".cog/secret": "do not send",
            "link": Symlink(".cog"),
            "deep/file": "",
        }
    )
    done = run_cogkit("build", project, "-o", f"type=tar,dest={tmp_path}/out.tar")
    if done.returncode == 0:  # a wildcard may match nothing, and a link is sent as a link
        with tarfile.open(tmp_path / "out.tar") as tar:
            files = [tar.extractfile(member) for member in tar if member.isfile()]
            assert all(b"do not send" not in file.read() for file in files if file)
    else:
        assert done.returncode == 1
        assert "not found" in done.stderr


def test_dockerfile_mount_offers_the_dockerfile_and_its_ignore_file_only(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    elsewhere = context_tree(
        {"my.Dockerfile": COPY_ALL, "my.Dockerfile.dockerignore": "skipped\n", "private": "p"}, name="elsewhere"
    )
    project = context_tree({"kept": "k", "skipped": "s"})
    succeeded(
        run_cogkit("build", project, "-f", elsewhere / "my.Dockerfile", "-o", f"type=tar,dest={tmp_path}/out.tar")
    )
    assert names_in(tmp_path / "out.tar") == {"kept"}


def test_unchanged_project_sends_no_file_and_a_changed_one_only_the_change(
    context_tree: MakeTree, run_cogkit: RunCogkit
) -> None:
    project = context_tree({"Dockerfile": COPY_ALL, "big": os.urandom(3_000_000), "small": "1"})
    build = ("build", project, "--progress=rawjson")
    assert bytes_of_context(succeeded(run_cogkit(*build))) > 3_000_000
    assert bytes_of_context(succeeded(run_cogkit(*build))) < 10_000
    (project / "small").write_text("2" * 1000)
    assert 1000 < bytes_of_context(succeeded(run_cogkit(*build))) < 10_000


def test_two_projects_of_one_folder_name_do_not_evict_each_other(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    projects = [
        context_tree({"Dockerfile": COPY_ALL, "big": os.urandom(1_000_000)}, name=f"{parent}/app") for parent in "ab"
    ]
    for project in projects:
        assert bytes_of_context(succeeded(run_cogkit("build", project, "--progress=rawjson"))) > 1_000_000
    for project in projects:
        assert bytes_of_context(succeeded(run_cogkit("build", project, "--progress=rawjson"))) < 10_000


def test_same_size_edit_of_a_staged_file_is_sent(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    project = context_tree({"cog.yaml": COG_YAML + "  run:\n    - echo first > /said\n", "run.py": RUN_PY})
    text = (project / "cog.yaml").read_text()
    build = ("build", project, "--target", "cog_model", "--progress=rawjson")
    succeeded(run_cogkit(*build, timeout=600))
    (project / "cog.yaml").write_text(text.replace("first", "other"))
    done = succeeded(run_cogkit(*build, timeout=600))
    assert any("echo other" in str(vertex["name"]) for vertex in events(done.stderr, "vertexes"))


def test_named_contexts_are_read_and_their_own_cog_dir_is_not(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY --from=extra . /extra/\nCOPY --from=context . /own/\n"})
    extra = context_tree({"data": "d", ".cog/secret": "s"}, name="extra")
    replaced = context_tree({"replacement": "r"}, name="replaced")
    succeeded(
        run_cogkit(
            *("build", project, "-o", f"type=tar,dest={tmp_path}/out.tar"),
            *("--build-context", f"extra={extra}", "--build-context", f"context={replaced}"),
        )
    )
    assert {"extra/data", "own/replacement"} <= names_in(tmp_path / "out.tar")
    assert not any(".cog" in name for name in names_in(tmp_path / "out.tar"))


def test_a_build_writes_nothing_in_the_project_outside_its_cog_dir(
    context_tree: MakeTree, run_cogkit: RunCogkit
) -> None:
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY, ".dockerignore": "!.cog\n"})

    def snapshot() -> dict[str, tuple[int, int, bytes]]:
        return {
            str(path.relative_to(project)): (path.stat().st_mtime_ns, path.stat().st_mode, path.read_bytes())
            for path in project.rglob("*")
            if path.is_file() and path.relative_to(project).parts[0] != ".cog"
        }

    before = snapshot()
    succeeded(run_cogkit("build", project, timeout=600))
    assert snapshot() == before
    assert not (project / ".cog" / "build").exists()


def test_cog_project_becomes_an_image_with_its_labels_in_one_solve(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry
) -> None:
    project = context_tree(
        {
            "cog.yaml": COG_YAML + "  python_packages:\n    - cowsay==6.1\n",
            "run.py": RUN_PY,
        }
    )
    image = f"{base_images.host}/labelled"
    done = succeeded(
        run_cogkit("build", project, "-t", image, "--push", "--progress=rawjson", "--label", "own=yes", timeout=600)
    )
    assert base_images.config("labelled", "latest")["config"]["Labels"].items() >= {"own": "yes"}.items()
    labels = base_images.config("labelled", "latest")["config"]["Labels"]
    assert labels["run.cog.has_init"] == "true"
    assert labels["run.cog.version"] == json.loads(labels["run.cog.openapi_schema"])["info"]["version"] == "0.22.0"
    assert json.loads(labels["run.cog.config"])["build"]["python_version"] == "3.11"
    assert "cowsay==6.1" in labels["run.cog.pip_freeze"]
    exports = {str(v["name"]) for v in events(done.stderr, "vertexes") if "exporting to image" in str(v["name"])}
    assert len(exports) == 1


def test_layers_do_not_depend_on_where_or_when_a_project_is_built(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry
) -> None:
    def layers(name: str) -> list[str]:
        project = context_tree(
            {"cog.yaml": COG_YAML + "  python_packages: [cowsay==6.1]\n", "run.py": RUN_PY}, name=f"{name}/deep"
        )
        for path in [project / "run.py", project / "cog.yaml"]:
            os.utime(path, (1_700_000_000, 1_700_000_000))
        os.utime(project, (1_700_000_000, 1_700_000_000))
        succeeded(run_cogkit("build", project, "-t", f"{base_images.host}/{name}", "--push", timeout=600))
        return [layer["digest"] for layer in base_images.manifest(name, "latest")["layers"]]

    assert layers("here") == layers("there")


def test_twenty_builds_of_one_project_all_succeed_one_after_the_other(
    context_tree: MakeTree, start_cogkit: StartCogkit
) -> None:
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY})
    builds = [start_cogkit("build", project, "--target", "uv", "--progress=plain") for _ in range(20)]
    outcomes = [(build.communicate(timeout=600)[1].decode(), build.returncode) for build in builds]
    assert [code for _, code in outcomes] == [0] * 20, "\n".join(text for text, code in outcomes if code)
    assert any("waiting" in text.lower() for text, _ in outcomes)


def test_a_build_killed_in_the_middle_leaves_nothing_that_hurts_the_next(
    context_tree: MakeTree, start_cogkit: StartCogkit, run_cogkit: RunCogkit, eventually: Callable[..., None]
) -> None:
    project = context_tree({"cog.yaml": COG_YAML + "  run:\n    - sleep 5\n", "run.py": RUN_PY})
    build = start_cogkit("build", project)
    eventually(lambda: (project / ".cog" / "build" / "Dockerfile").exists(), within=60, what="a staged Dockerfile")
    build.send_signal(signal.SIGKILL)
    build.wait()
    succeeded(run_cogkit("build", project, "--lock-timeout", "5", "--target", "uv", timeout=600))
    assert not (project / ".cog" / "build").exists()


def test_image_id_and_metadata_files_appear_whole(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    project = context_tree({"Dockerfile": COPY_ALL})
    done = succeeded(
        run_cogkit("build", project, "--progress=quiet", "--iidfile", "id", "--metadata-file", "meta.json")
    )
    metadata = json.loads((project.parent / "meta.json").read_text())
    assert (project.parent / "id").read_text() == metadata["containerimage.config.digest"] == done.stdout.strip()


def test_metadata_has_warnings_and_provenance_as_with_buildx(
    context_tree: MakeTree, run_cogkit: RunCogkit, cogkit_env: dict[str, str | None]
) -> None:
    project = context_tree({"Dockerfile": "from scratch\nCOPY Dockerfile /\n"})
    cogkit_env |= {"BUILDX_METADATA_WARNINGS": "1", "BUILDX_METADATA_PROVENANCE": "max"}
    succeeded(run_cogkit("build", project, "--no-cache", "--metadata-file", "meta.json"))
    metadata = json.loads((project.parent / "meta.json").read_text())
    provenance = metadata["buildx.build.provenance"]
    assert provenance["buildType"] == "https://mobyproject.org/buildkit@v1"
    assert provenance["invocation"]["parameters"]["frontend"] == "dockerfile.v0"
    assert {"buildConfig", "metadata"} <= provenance.keys()
    assert isinstance(metadata.get("buildx.build.warnings", []), list)
    cogkit_env |= {"BUILDX_METADATA_PROVENANCE": "disabled"}
    succeeded(run_cogkit("build", project, "--metadata-file", "meta.json"))
    assert "buildx.build.provenance" not in json.loads((project.parent / "meta.json").read_text())


def test_a_failed_build_takes_the_image_id_of_the_last_one_away(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    project = context_tree({"Dockerfile": COPY_ALL + "COPY missing /\n"})
    (project.parent / "id").write_text("sha256:old")
    assert run_cogkit("build", project, "--iidfile", "id").returncode == 1
    assert not (project.parent / "id").exists()


def test_the_result_of_a_build_runs_on_the_builder(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    project = context_tree(
        {"Dockerfile": "FROM python:3.11-slim\nARG WHO=nobody\nRUN python -c \"print('hello $WHO')\"\n"}
    )
    done = succeeded(run_cogkit("build", project, "--build-arg", "WHO=world", "--no-cache", "--progress=rawjson"))
    assert "hello world" in logged(done)
