"""Weights of a Cog project: in layers of their own, which an edit of the code neither sends nor makes again."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.e2e.test_build import COG_YAML, events, succeeded
from tests.real.registry import Registry

RUN_PY = "class Runner:\n    def run(self) -> str:\n        return 'one'\n"
BIG = 11_000_000


def sent(done: CompletedProcess[str]) -> int:
    """All bytes that the daemon says to have taken from this machine's folders."""
    transfers: dict[str, int] = {}
    for status in events(done.stderr, "statuses"):
        if str(status["id"]).startswith("transferring"):
            name = f"{status['vertex']}{status['id']}"
            transfers[name] = max(transfers.get(name, 0), int(str(status.get("current", 0))))
    return sum(transfers.values())


def layers(registry: Registry, name: str) -> dict[str, set[str]]:
    """The files of each layer, by the layer's digest, in order; without folders."""
    found: dict[str, set[str]] = {}
    for layer in registry.image_manifest(name, "latest")["layers"]:
        with tarfile.open(fileobj=io.BytesIO(registry.blob(name, layer["digest"]))) as tar:
            found[layer["digest"]] = {member.name for member in tar if not member.isdir()}
    return found


def holding(found: dict[str, set[str]], file: str) -> list[str]:
    """Digests of the layers that hold a file."""
    return [digest for digest, files in found.items() if file in files]


def test_an_edit_of_the_code_leaves_the_weights_where_they_are(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry
) -> None:
    ignored = "**/*.tmp\n"
    project = context_tree(
        {
            "cog.yaml": COG_YAML,
            "run.py": RUN_PY,
            ".dockerignore": ignored,
            "models/net.bin": os.urandom(BIG),
            "models/config.json": "{}",
            "models/left.tmp": "not sent",
            "code/net.py": "",
            "code/[net] one.ckpt": os.urandom(BIG),
            "film.mp4": os.urandom(BIG),
        }
    )
    build = ("build", project, "-t", f"{base_images.host}/parted", "--push", "--progress=rawjson", "--separate-weights")
    first = succeeded(run_cogkit(*build, timeout=900))
    assert sent(first) > 2 * BIG
    before = layers(base_images, "parted")
    (folder,) = holding(before, "src/models/net.bin")
    assert before[folder] == {"src/models/net.bin", "src/models/config.json"}
    (single,) = holding(before, "src/code/[net] one.ckpt")
    assert before[single] == {"src/code/[net] one.ckpt"}
    (source,) = holding(before, "src/run.py")
    assert before[source] >= {"src/code/net.py", "src/film.mp4", "src/cog.yaml"}

    (project / "run.py").write_text(RUN_PY.replace("one", "two"))
    second = succeeded(run_cogkit(*build, timeout=300))
    assert sent(second) < 10_000
    after = layers(base_images, "parted")
    assert holding(after, "src/models/net.bin") == [folder]
    assert holding(after, "src/code/[net] one.ckpt") == [single]
    assert holding(after, "src/run.py") != [source]
    rebuilt = {str(v["name"]) for v in events(second.stderr, "vertexes") if v.get("started") and not v.get("cached")}
    assert not [name for name in rebuilt if "COPY --from=cog_weights" in name]
    assert (project / ".dockerignore").read_text() == ignored


@pytest.mark.parametrize("where", ["flag", "cog.yaml"])
def test_the_user_says_what_a_weight_is(
    where: str, context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry
) -> None:
    key = "" if where == "flag" else '  weights_paths: ["**/*.w", "!small/no.w"]\n'
    flags = ("--weights-path=**/*.w", "--weights-path=!small/no.w") if where == "flag" else ("--separate-weights",)
    project = context_tree(
        {
            "cog.yaml": COG_YAML + key,
            "run.py": RUN_PY,
            "small/a.w": "a",
            "small/no.w": "no weight",
            "other.bin": os.urandom(BIG),
        }
    )
    name = f"named-{where.replace('.', '-')}"
    succeeded(run_cogkit("build", project, "-t", f"{base_images.host}/{name}", "--push", *flags, timeout=900))
    found = layers(base_images, name)
    (weight,) = holding(found, "src/small/a.w")
    assert found[weight] == {"src/small/a.w"}
    (source,) = holding(found, "src/run.py")
    assert found[source] >= {"src/small/no.w", "src/other.bin"}


def test_a_hundred_weights_do_not_make_a_hundred_layers(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry
) -> None:
    shards: dict[str, Any] = {f"shards/{number}.w": f"{number}" for number in range(100)}
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY, "shards/notes.txt": "no weight", **shards})
    flags = ("--weights-path", "shards/*.w")
    succeeded(run_cogkit("build", project, "-t", f"{base_images.host}/shards", "--push", *flags, timeout=900))
    found = layers(base_images, "shards")
    (layer,) = holding(found, "src/shards/0.w")
    assert found[layer] == {f"src/{path}" for path in shards}
    assert len(found) < 30


def test_a_build_without_separate_weights_is_what_it_was(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry
) -> None:
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY, "net.bin": os.urandom(BIG)})
    succeeded(run_cogkit("build", project, "-t", f"{base_images.host}/whole", "--push", timeout=900))
    found = layers(base_images, "whole")
    assert holding(found, "src/net.bin") == holding(found, "src/run.py")


def test_managed_weights_are_named_in_the_image_and_missing_ones_end_the_build(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry, tmp_path: Path
) -> None:
    weights = "model: owner/name\nweights:\n  - name: base\n    target: /src/w\n    source:\n      uri: hf://org/repo\n"
    project = context_tree({"cog.yaml": COG_YAML + weights, "run.py": RUN_PY})
    refused = run_cogkit("build", project)
    assert refused.returncode == 2
    assert 'weights.lock is out of sync with cog.yaml:\n  - "base": not imported yet' in refused.stderr
    assert "cogkit weights import" in refused.stderr

    entry = {
        "name": "base",
        "target": "/src/w",
        "sources": [{"uri": "hf://org/repo", "fingerprint": "commit:1", "include": [], "exclude": []}],
        "setDigest": "sha256:1234",
    }
    (project / "weights.lock").write_text(json.dumps({"version": 1, "weights": [entry]}))
    image = f"{base_images.host}/managed"
    succeeded(run_cogkit("build", project, "-t", image, "--push", timeout=900))
    told = json.loads((project / ".cog" / "weights.json").read_text())
    assert told == {"weights": [{"name": "base", "target": "/src/w", "setDigest": "sha256:1234"}]}
    assert holding(layers(base_images, "managed"), "src/.cog/weights.json")
