"""From options to what the frontend and the exporters are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from cogkit.building.definition import context_mount, read_definition
from cogkit.building.options import BuildOptions, NamedContext, OutputSpec
from cogkit.building.plan import FrontendPlan, plan_exports, plan_frontend
from cogkit.buildkit.exports import Export
from cogkit.errors import UsageError
from cogkit.project.weights.layers import NO_WEIGHTS, WeightLayers

NOWHERE = Path("/nonexistent/project")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "Dockerfile").touch()
    return root


def plan(
    project: Path,
    options: BuildOptions | None = None,
    *,
    staged: Path | None = None,
    weights: WeightLayers = NO_WEIGHTS,
) -> FrontendPlan:
    definition = read_definition(project / "Dockerfile")
    return plan_frontend(
        options or BuildOptions(),
        context=context_mount(project),
        dockerfile=definition.mount,
        filename=definition.filename,
        staged=staged,
        weights=weights,
    )


def test_context_hides_the_cog_dir_and_dockerfile_mount_offers_nothing_but_the_dockerfile(project: Path) -> None:
    context, dockerfile = plan(project).mounts
    assert (context.name, context.root, context.hidden) == ("context", project, frozenset({".cog"}))
    assert (dockerfile.name, dockerfile.files) == ("dockerfile", {"Dockerfile": b""})


def test_options_become_the_attributes_that_dockerfile_v0_knows(project: Path) -> None:
    options = BuildOptions(
        target="test",
        build_args={"A": "1"},
        labels={"own": "yes"},
        platforms=("linux/amd64", "linux/arm64"),
        no_cache=True,
        pull=True,
    )
    assert plan(project, options).attrs == {
        "filename": "Dockerfile",
        "target": "test",
        "build-arg:A": "1",
        "label:own": "yes",
        "platform": "linux/amd64,linux/arm64",
        "no-cache": "",
        "image-resolve-mode": "pull",
    }


def test_what_version_control_says_is_told_to_the_frontend_and_to_the_builder(project: Path) -> None:
    said = {"vcs:revision": "abc", "label:org.opencontainers.image.revision": "abc", "label:a": "git's"}
    options = BuildOptions(vcs=said, labels={"a": "mine"}, attestations={"provenance": "mode=max"})
    found = plan(project, options)
    assert found.attrs["vcs:revision"] == found.attrs["label:org.opencontainers.image.revision"] == "abc"
    assert found.attrs["label:a"] == "mine"
    assert found.for_the_builder == {"vcs:revision": "abc", "attest:provenance": "mode=max"}


def test_staged_files_are_the_context_cog_build(project: Path, tmp_path: Path) -> None:
    staged = plan(project, staged=tmp_path / "staged")
    assert staged.attrs["context:cog_build"] == "local:cog_build"
    assert staged.attrs["frontend.caps"] == "moby.buildkit.frontend.contexts+forward"
    assert staged.mounts[-1].root == tmp_path / "staged"


def test_the_name_cog_build_cannot_be_taken(project: Path, tmp_path: Path) -> None:
    options = BuildOptions(build_contexts=(NamedContext("cog_build", str(tmp_path), local=True),))
    with pytest.raises(UsageError, match="cog_build"):
        plan(project, options, staged=tmp_path)
    assert plan(project, options).attrs["context:cog_build"] == "local:cog_build"


@pytest.mark.parametrize("name", ["context", "dockerfile"])
def test_named_context_evades_the_names_of_the_sessions_own_mounts(name: str, project: Path, tmp_path: Path) -> None:
    named = plan(project, BuildOptions(build_contexts=(NamedContext(name, str(tmp_path), local=True),)))
    assert named.attrs[f"context:{name}"] == f"local:_{name}"
    assert [mount.name for mount in named.mounts] == ["context", "dockerfile", f"_{name}"]
    assert named.mounts[-1].hidden == frozenset({".cog"})


def test_remote_named_context_is_passed_on_and_needs_no_mount(project: Path) -> None:
    named = plan(project, BuildOptions(build_contexts=(NamedContext("base", "docker-image://alpine", local=False),)))
    assert named.attrs["context:base"] == "docker-image://alpine"
    assert len(named.mounts) == 2


@pytest.mark.parametrize("folder", [".cog", "other/.cog"])
def test_a_cog_dir_cannot_be_a_named_context(folder: str, project: Path) -> None:
    (project / folder).mkdir(parents=True)
    with pytest.raises(UsageError, match=r"\.cog cannot be a context"):
        plan(project, BuildOptions(build_contexts=(NamedContext("x", str(project / folder), local=True),)))


def test_missing_named_context_is_refused_before_the_build(project: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        plan(project, BuildOptions(build_contexts=(NamedContext("x", str(project / "no"), local=True),)))


def test_one_folder_has_one_key_and_two_folders_two(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "project"
    other.mkdir(parents=True)
    (other / "Dockerfile").touch()
    assert plan(project).shared_key == plan(project).shared_key != plan(other).shared_key


def test_no_output_leaves_the_result_in_the_cache_unless_an_image_is_wanted() -> None:
    assert plan_exports(BuildOptions(), names=(), default_image=False, project_root=NOWHERE) == ()
    (image,) = plan_exports(BuildOptions(), names=("a", "b:1"), default_image=True, project_root=NOWHERE)
    assert (image.type, image.attrs) == ("image", {"name": "a,b:1"})


def test_push_adds_an_image_beside_other_outputs_and_pushes_the_one_that_is_there() -> None:
    tar = OutputSpec("tar", dest="out.tar")
    options = BuildOptions(push=True, outputs=(tar,))
    assert [
        export.type for export in plan_exports(options, names=("n",), default_image=True, project_root=NOWHERE)
    ] == ["tar", "image"]
    options = BuildOptions(push=True, outputs=(OutputSpec("image", attrs={"compression": "zstd"}),))
    (image,) = plan_exports(options, names=("n",), default_image=True, project_root=NOWHERE)
    assert image.attrs == {"compression": "zstd", "name": "n", "push": "true", "unpack": "false"}


def test_registry_output_is_a_pushed_image() -> None:
    (image,) = plan_exports(
        BuildOptions(outputs=(OutputSpec("registry"),)), names=("n",), default_image=True, project_root=NOWHERE
    )
    assert (image.type, image.attrs) == ("image", {"name": "n", "push": "true", "unpack": "false"})


def test_push_without_a_name_is_refused() -> None:
    with pytest.raises(UsageError, match="without a name"):
        plan_exports(BuildOptions(push=True), names=(), default_image=False, project_root=NOWHERE)


@pytest.mark.parametrize("kind", ["oci", "docker", "tar", "local"])
def test_output_into_a_file_or_folder_needs_its_destination(kind: str) -> None:
    with pytest.raises(UsageError, match="needs dest="):
        plan_exports(BuildOptions(outputs=(OutputSpec(kind),)), names=(), default_image=False, project_root=NOWHERE)


def test_archives_bear_the_images_names_and_trees_do_not() -> None:
    outputs = (OutputSpec("oci", dest="o.tar"), OutputSpec("tar", dest="t.tar"), OutputSpec("local", dest="d"))
    oci, tar, local = plan_exports(
        BuildOptions(outputs=outputs), names=("n",), default_image=True, project_root=NOWHERE
    )
    assert oci.attrs == {"name": "n"} and oci.file is not None and oci.file.path == "o.tar"
    assert tar.attrs == {} and local.attrs == {} and local.directory == Path("d")


def local_export(project: Path, dest: Path) -> Export:
    options = BuildOptions(outputs=(OutputSpec("local", dest=str(dest)),))
    (export,) = plan_exports(options, names=(), default_image=False, project_root=project)
    return export


def test_no_builder_writes_the_projects_own_cog_dir(project: Path) -> None:
    assert ".cog" in local_export(project, project).protected_names
    assert ".cog" not in local_export(project, project / "out").protected_names
    with pytest.raises(UsageError, match=r"\.cog"):
        local_export(project, project / ".cog" / "build")


def test_weights_are_in_their_own_context_and_not_in_the_projects(project: Path) -> None:
    weights = WeightLayers(("net.bin",), ("net.bin",))
    parted = plan(project, weights=weights)
    by_name = {mount.name: mount for mount in parted.mounts}
    assert by_name["context"].exclude_patterns == ("net.bin",)
    assert by_name["cog_weights"].exclude_patterns == ("*", "!.dockerignore", "!net.bin")
    assert by_name["cog_weights"].hidden == frozenset({".cog"})
    assert parted.attrs["context:cog_weights"] == "local:cog_weights"
    assert parted.attrs["sharedkey:localdir:cog_weights"]
    with pytest.raises(UsageError, match="cog_weights"):
        options = BuildOptions(build_contexts=(NamedContext("cog_weights", str(project), local=True),))
        plan(project, options, weights=weights)


@pytest.mark.parametrize("kind", ["image", "oci", "local", "tar"])
def test_a_timestamp_reaches_the_steps_and_every_output(kind: str, project: Path) -> None:
    options = BuildOptions(timestamp=7, outputs=(OutputSpec(kind, dest=None if kind == "image" else "out"),))
    assert plan(project, options).attrs["build-arg:SOURCE_DATE_EPOCH"] == "7"
    (export,) = plan_exports(options, names=("a",), default_image=True, project_root=NOWHERE)
    assert export.attrs["source-date-epoch"] == "7"
    assert export.attrs.get("rewrite-timestamp") == ("true" if kind in ("image", "oci") else None)


def test_what_the_user_says_of_an_output_goes_before_the_timestamp(project: Path) -> None:
    said = OutputSpec("image", attrs={"rewrite-timestamp": "false", "source-date-epoch": "1"})
    unpacked = OutputSpec("image", attrs={"unpack": "true"})
    options = BuildOptions(timestamp=7, outputs=(said, unpacked))
    first, second = plan_exports(options, names=("a",), default_image=True, project_root=NOWHERE)
    assert (first.attrs["rewrite-timestamp"], first.attrs["source-date-epoch"]) == ("false", "1")
    # BuildKit refuses the two together.
    assert "rewrite-timestamp" not in second.attrs


def test_a_build_argument_alone_dates_the_image_and_rewrites_nothing(project: Path) -> None:
    options = BuildOptions(build_args={"SOURCE_DATE_EPOCH": "5"})
    (export,) = plan_exports(options, names=("a",), default_image=True, project_root=NOWHERE)
    assert export.attrs["source-date-epoch"] == "5"
    assert "rewrite-timestamp" not in export.attrs


def test_only_what_is_pushed_alone_is_not_unpacked() -> None:
    said = OutputSpec("image", attrs={"unpack": "true"})
    own = OutputSpec("image", attrs={"push": "true", "name": "n"})
    for options, unpack in (
        (BuildOptions(push=True), "false"),
        (BuildOptions(outputs=(OutputSpec("registry", attrs={"name": "n"}),)), "false"),
        (BuildOptions(push=True, outputs=(said,)), "true"),
        (BuildOptions(outputs=(own,)), None),
        (BuildOptions(outputs=(OutputSpec("image"),)), None),
    ):
        (export,) = plan_exports(options, names=("n",), default_image=False, project_root=NOWHERE)
        assert export.attrs.get("unpack") == unpack


@pytest.mark.parametrize("kind", ["image", "registry", "oci", "docker"])
def test_a_tag_goes_before_the_name_of_an_output_and_that_before_a_default(kind: str) -> None:
    output = OutputSpec(kind, dest="out" if kind in ("oci", "docker") else None, attrs={"name": "from-output"})
    for tags, names, name in (
        (("a", "b"), ("a", "b"), "a,b"),
        ((), ("default",), "from-output"),
        ((), (), "from-output"),
    ):
        options = BuildOptions(tags=tags, outputs=(output,))
        (export,) = plan_exports(options, names=names, default_image=False, project_root=NOWHERE)
        assert export.attrs["name"] == name


@pytest.mark.parametrize("value", ["context", "stage", "", "0x5"])
def test_a_time_that_only_the_frontend_can_resolve_is_not_given_to_the_exporter(value: str) -> None:
    options = BuildOptions(build_args={"SOURCE_DATE_EPOCH": value}, outputs=(OutputSpec("image"),))
    (export,) = plan_exports(options, names=(), default_image=False, project_root=NOWHERE)
    assert "source-date-epoch" not in export.attrs
