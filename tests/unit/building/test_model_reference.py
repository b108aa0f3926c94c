"""The name that a push goes to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cogkit.building.model_reference import push_target
from cogkit.building.push import explained_push_failure, model_page, uuid7
from cogkit.buildkit.errors import BuildError
from cogkit.cli.exit_codes import exit_code_of
from cogkit.errors import CogkitError

NOW = datetime(2026, 5, 8, 15, 30, 42, tzinfo=UTC)
STAMP = "20260508T153042Z"


@pytest.mark.parametrize(
    ("image", "model", "argument", "environ", "target"),
    [
        ("", "", "ghcr.io/me/x", {}, "ghcr.io/me/x"),
        ("ghcr.io/me/y:1", "", None, {}, "ghcr.io/me/y:1"),
        ("ghcr.io/me/y:1", "", "me/x", {}, "me/x"),
        ("", "ghcr.io/me/z", None, {}, f"ghcr.io/me/z:{STAMP}"),
        ("", "ghcr.io/me/z", None, {"COG_MODEL_TAG": "v2"}, "ghcr.io/me/z:v2"),
        ("", "ghcr.io/me/z", None, {"COG_MODEL_REGISTRY": "other:5000"}, f"other:5000/me/z:{STAMP}"),
        ("", "", None, {"COG_MODEL_REPO": "me/r"}, f"r8.im/me/r:{STAMP}"),
        ("", "", None, {"COG_MODEL_REPO": "me/r", "COG_REGISTRY_HOST": "here"}, f"here/me/r:{STAMP}"),
        ("", "a/b", None, {"COG_MODEL": "ghcr.io/full/ref:tag", "COG_MODEL_TAG": "x"}, "ghcr.io/full/ref:tag"),
        ("", "", None, {"COG_MODEL": "localhost:5000/full/ref"}, f"localhost:5000/full/ref:{STAMP}"),
        ("", "", "x", {"COG_MODEL_TAG": "v1"}, "x"),
    ],
)
def test_the_name_comes_from_where_cog_takes_it(
    image: str, model: str, argument: str | None, environ: dict[str, str], target: str
) -> None:
    assert push_target(image, model, argument, environ, NOW) == target


@pytest.mark.parametrize(
    ("image", "model", "argument", "environ", "message"),
    [
        ("", "", None, {}, "To push images, you must either set the 'image' option in cog.yaml"),
        ("i", "", None, {"COG_MODEL": "m"}, "'image' in cog.yaml cannot be combined with COG_MODEL* env vars"),
        ("", "m", "x", {}, "positional image argument not supported with 'model' config"),
        ("", "", None, {"COG_MODEL_REPO": "me/r:1"}, "must be a bare repository path (no host, tag, or digest)"),
        ("", "", None, {"COG_MODEL_REGISTRY": "a/b"}, "must be a bare host (no path, tag, or digest)"),
        ("", "m", None, {"COG_MODEL_TAG": "cog-x"}, '"cog-" is a reserved prefix'),
        ("", "m", None, {"COG_MODEL_TAG": "-x"}, "must match OCI tag regex"),
        ("", "", None, {"COG_MODEL": f"m@sha256:{'0' * 64}"}, "is known only after the build"),
        ("", "", None, {"COG_MODEL": "me/X"}, "invalid COG_MODEL value"),
        ("", "", "UP/x y", {}, "the image to push"),
    ],
)
def test_names_that_contradict_each_other_or_are_none_are_refused(
    image: str, model: str, argument: str | None, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(CogkitError) as caught:
        push_target(image, model, argument, environ, NOW)
    assert message in caught.value.message
    assert exit_code_of(caught.value) == 2


def test_push_ids_are_uuids_of_version_7_in_the_order_of_time() -> None:
    ids = [uuid7() for _ in range(3)]
    assert all(each.version == 7 and each.variant == "specified in RFC 4122" for each in ids)
    assert len(set(ids)) == 3
    assert ids[0].int >> 80 <= ids[-1].int >> 80


def test_replicates_unknown_model_is_explained_and_other_failures_are_left_alone() -> None:
    failure = BuildError("failed to push r8.im/me/x: 404 Not Found")
    assert "Go to replicate.com" in explained_push_failure(failure, "r8.im/me/x").message
    for problem, image in (
        (failure, "ghcr.io/me/x"),
        (BuildError("failed to solve: not found"), "r8.im/me/x"),
        (BuildError("failed to push: 500"), "r8.im/me/x"),
    ):
        assert explained_push_failure(problem, image) is problem


def test_a_model_at_replicate_has_a_page() -> None:
    assert model_page("r8.im/me/x:v1") == "https://replicate.com/me/x"
    assert model_page("ghcr.io/me/x:v1") is None
