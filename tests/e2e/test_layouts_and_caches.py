"""OCI layouts and build caches with the real daemon: what travels, and what is there afterwards."""

from __future__ import annotations

import base64
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.e2e.test_build import COG_YAML, RUN_PY, events, logged, names_in, succeeded
from tests.real.buildkitd import Buildkitd
from tests.real.registry import Registry

SLOW_STEP = "FROM busybox\nRUN echo ran-it && head -c 300000 /dev/urandom > /made\n"


def blobs(layout: Path) -> dict[str, int]:
    """Inodes of a layout's blobs."""
    return {path.name: path.stat().st_ino for path in (layout / "blobs" / "sha256").iterdir()}


def image_names(layout: Path) -> list[str]:
    index = json.loads((layout / "index.json").read_text())
    return [entry["annotations"].get("io.containerd.image.name", "") for entry in index["manifests"]]


def manifest_of(layout: Path) -> dict[str, object]:
    index = json.loads((layout / "index.json").read_text())
    digest = index["manifests"][-1]["digest"].removeprefix("sha256:")
    manifest: dict[str, object] = json.loads((layout / "blobs" / "sha256" / digest).read_text())
    return manifest


def cached_steps(stderr: str) -> dict[str, bool]:
    return {str(vertex["name"]): bool(vertex.get("cached")) for vertex in events(stderr, "vertexes")}


def forget_everything(daemon: Buildkitd) -> None:
    """As if it had never built: what it has made itself a daemon does not ask for."""
    daemon.stop()
    shutil.rmtree(daemon.root)
    daemon.start()


@pytest.fixture
def fresh(private_buildkitd: Buildkitd, cogkit_env: dict[str, str | None]) -> Iterator[Buildkitd]:
    """A daemon that has built nothing yet, which cogkit uses."""
    cogkit_env["BUILDKIT_HOST"] = private_buildkitd.address
    yield private_buildkitd


def test_image_becomes_a_layout_and_only_its_new_blobs_travel(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY a /\nCOPY b /\n", "a": os.urandom(100_000), "b": "1"})
    build = ("build", project, "-o", f"type=oci,tar=false,dest={tmp_path}/image")
    succeeded(run_cogkit(*build, "-t", "app:v1"))
    first = blobs(tmp_path / "image")
    assert image_names(tmp_path / "image") == ["docker.io/library/app:v1"]
    assert json.loads((tmp_path / "image" / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (project / "b").write_text("2")
    succeeded(run_cogkit(*build, "-t", "app:v2"))
    second = blobs(tmp_path / "image")
    assert image_names(tmp_path / "image") == ["docker.io/library/app:v1", "docker.io/library/app:v2"]
    assert second.items() >= first.items()
    assert len(second) == len(first) + 3  # a layer, a config and a manifest
    assert {path.name for path in (tmp_path / "image").iterdir()} == {"blobs", "index.json", "oci-layout"}


def test_failed_build_names_nothing_in_a_layout(context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN false\n"})
    done = run_cogkit("build", project, "-t", "app", "-o", f"type=oci,tar=false,dest={tmp_path}/image")
    assert done.returncode == 1
    assert not (tmp_path / "image" / "index.json").exists()


@pytest.mark.parametrize("address", ["oci-layout://{}", "oci-layout://{}:v1", "oci-layout://{}@{}"])
def test_layout_is_a_base_image(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path, address: str, fresh: Buildkitd
) -> None:
    base = context_tree({"Dockerfile": "FROM scratch\nCOPY file /from-base\n", "file": address}, name="base")
    layout = tmp_path / "base-image"
    succeeded(run_cogkit("build", base, "-t", "base:v1", "-o", f"type=oci,tar=false,dest={layout}"))
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    project = context_tree({"Dockerfile": "FROM base\nCOPY own /\n", "own": "o"})
    before = blobs(layout)
    forget_everything(fresh)
    succeeded(
        run_cogkit(
            *("build", project, "-o", f"type=tar,dest={tmp_path}/out.tar"),
            *("--build-context", f"base={address.format(layout, digest)}"),
        )
    )
    assert names_in(tmp_path / "out.tar") == {"from-base", "own"}
    assert blobs(layout) == before


def test_layout_that_is_not_there_stops_the_build_before_a_builder_is_asked(
    context_tree: MakeTree, run_cogkit: RunCogkit
) -> None:
    project = context_tree({"Dockerfile": "FROM base\n"})
    done = run_cogkit(
        "build", project, "--build-context", "base=oci-layout://gone", env={"BUILDKIT_HOST": "unix:///nowhere"}
    )
    assert (done.returncode, "gone is not an OCI layout" in done.stderr) == (2, True), done.stderr


def test_local_cache_saves_the_work_of_a_daemon_that_has_never_built(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path, fresh: Buildkitd
) -> None:
    project = context_tree({"Dockerfile": SLOW_STEP})
    cache = tmp_path / "cache"
    arguments = ("--cache-from", f"type=local,src={cache}", "--cache-to", f"type=local,dest={cache},mode=max")
    done = succeeded(run_cogkit("build", project, *arguments, "--progress=rawjson"))
    assert "ran-it" in logged(done)
    warnings = [base64.b64decode(str(each["short"])) for each in events(done.stderr, "warnings")]
    assert any(b"is not an OCI layout" in warning for warning in warnings)  # the first build has no cache, and says so
    before = blobs(cache)
    forget_everything(fresh)
    output = ("-o", f"type=tar,dest={tmp_path}/out.tar")
    done = succeeded(run_cogkit("build", project, *arguments, *output, "--progress=rawjson"))
    assert "ran-it" not in logged(done)
    assert "made" in names_in(tmp_path / "out.tar")
    assert blobs(cache).items() >= before.items()


def test_cog_project_imports_its_cache_too(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path, fresh: Buildkitd
) -> None:
    project = context_tree({"cog.yaml": COG_YAML + "  run:\n    - echo ran-$((1+1))-it\n", "run.py": RUN_PY})
    cache = tmp_path / "cache"
    succeeded(run_cogkit("build", project, "--cache-to", f"type=local,dest={cache},mode=max", "-t", "app", timeout=600))
    forget_everything(fresh)
    done = succeeded(
        run_cogkit(
            *("build", project, "--cache-from", f"type=local,src={cache}", "-t", "app", "--progress=rawjson"),
            timeout=600,
        )
    )
    assert "ran-2-it" not in logged(done)


def test_registry_and_inline_caches_are_the_builders_own(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry
) -> None:
    project = context_tree({"Dockerfile": SLOW_STEP})
    image = f"{base_images.host}/cached"
    succeeded(run_cogkit("build", project, "-t", image, "--push", "--cache-to", "type=inline"))
    config = base_images.config("cached", "latest")
    assert "moby.buildkit.cache.v0" in config
    succeeded(run_cogkit("build", project, "--cache-to", f"type=registry,ref={image}:cache", "--cache-from", image))
    assert base_images.manifest("cached", "cache")


def test_unknown_cache_type_is_the_builders_word(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    done = run_cogkit("build", context_tree({"Dockerfile": SLOW_STEP}), "--cache-to", "type=nowhere,a=b")
    assert done.returncode == 1
    assert "nowhere" in done.stderr


def test_archive_and_layout_hold_the_same_image(context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a"})
    succeeded(
        run_cogkit(
            *("build", project, "-t", "app"),
            *("-o", f"type=oci,tar=false,dest={tmp_path}/image", "-o", f"type=oci,dest={tmp_path}/image.tar"),
        )
    )
    with tarfile.open(tmp_path / "image.tar") as tar:
        in_archive = {Path(member.name).name for member in tar if member.name.startswith("blobs/sha256/")}
    assert set(blobs(tmp_path / "image")) == in_archive - {""}


def test_provenance_and_network_and_limits_reach_the_build(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    dockerfile = (
        "FROM busybox\n"
        "RUN cat /etc/hosts && ulimit -n && df -k /dev/shm | tail -1 && ls /sys/class/net | xargs echo networks:\n"
    )
    project = context_tree({"Dockerfile": dockerfile})
    done = succeeded(
        run_cogkit(
            *("build", project, "--no-cache", "--progress=rawjson", "-t", "app"),
            *("--network", "none", "--add-host", "db.internal:10.9.8.7", "--ulimit", "nofile=321:654"),
            *("--shm-size", "96m", "--provenance", "mode=max", "-o", f"type=oci,tar=false,dest={tmp_path}/image"),
        )
    )
    output = logged(done)
    assert "10.9.8.7\tdb.internal" in output
    assert "\n321\n" in output
    assert f" {96 << 10} " in output
    assert "networks: lo\n" in output
    manifests = manifest_of(tmp_path / "image")["manifests"]
    assert isinstance(manifests, list)
    assert "attestation-manifest" in json.dumps(manifests)


def test_attestations_of_a_cog_project_are_made_of_the_image_alone(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY})
    succeeded(
        run_cogkit(
            *("build", project, "-t", "app", "--provenance", "true", "--platform", "local"),
            *("-o", f"type=oci,tar=false,dest={tmp_path}/image"),
            timeout=600,
        )
    )
    manifests = manifest_of(tmp_path / "image")["manifests"]
    assert isinstance(manifests, list)
    kinds = [
        entry["annotations"].get("vnd.docker.reference.type", "image") for entry in manifests if "annotations" in entry
    ]
    assert kinds.count("attestation-manifest") == 1
    blob = tmp_path / "image" / "blobs" / "sha256" / manifests[0]["digest"][7:]
    config_digest = json.loads(blob.read_text())["config"]["digest"][7:]
    config = json.loads((tmp_path / "image" / "blobs" / "sha256" / config_digest).read_text())
    assert config["config"]["Labels"]["run.cog.has_init"] == "true"


def test_filter_runs_the_steps_of_one_stage_again(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    dockerfile = (
        "FROM busybox AS one\nRUN echo first > /f\nFROM busybox AS two\nRUN echo second > /s\nCOPY --from=one /f /\n"
    )
    project = context_tree({"Dockerfile": dockerfile})
    build = ("build", project, "--progress=rawjson")
    succeeded(run_cogkit(*build))
    done = succeeded(run_cogkit(*build, "--no-cache-filter", "two"))
    cached = cached_steps(done.stderr)
    assert cached["[one 2/2] RUN echo first > /f"]
    assert not cached["[two 2/3] RUN echo second > /s"]
    done = run_cogkit(*build, "--no-cache-filter", "two", "--no-cache")
    assert (done.returncode, "exclude each other" in done.stderr) == (2, True)


def test_source_policy_denies_what_it_says(
    context_tree: MakeTree, run_cogkit: RunCogkit, registry: Registry, tmp_path: Path
) -> None:
    rule = {"action": "DENY", "selector": {"identifier": "docker-image://docker.io/library/busybox:*"}}
    (tmp_path / "policy.json").write_text(json.dumps({"rules": [rule]}))
    project = context_tree({"Dockerfile": SLOW_STEP})
    environment = {"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": str(tmp_path / "policy.json")}
    done = run_cogkit("build", project, env=environment)
    assert (done.returncode, "denied by policy" in done.stderr) == (1, True), done.stderr
    done = run_cogkit("push", f"{registry.host}/denied-by-policy", "--context", project, env=environment)
    assert (done.returncode, "denied by policy" in done.stderr) == (1, True), done.stderr
    succeeded(run_cogkit("build", project))


def test_local_output_deletes_outside_the_working_directory_only_when_allowed(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a"})
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()
    (tmp_path / "elsewhere").mkdir()
    build = ("build", project, "-o", f"type=local,mode=delete,dest={target}")
    done = run_cogkit(*build, cwd=tmp_path / "elsewhere")
    assert (done.returncode, "--allow buildx.local.delete" in done.stderr) == (2, True)
    assert (target / "old").exists()


def test_metadata_has_the_description_of_the_result(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY a /\n", "a": "a"})
    output = ("-o", f"type=oci,tar=false,dest={tmp_path}/image")
    succeeded(run_cogkit("build", project, *output, "--metadata-file", tmp_path / "meta.json"))
    metadata = json.loads((tmp_path / "meta.json").read_text())
    index = json.loads((tmp_path / "image" / "index.json").read_text())
    assert metadata["containerimage.digest"] == index["manifests"][0]["digest"]
