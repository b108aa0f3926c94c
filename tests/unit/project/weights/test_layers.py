"""Which files are weights, and how they are parted into layers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cogkit.building.context_report import sent_files
from cogkit.building.options import CogOptions
from cogkit.building.weight_files import find_weights
from cogkit.buildkit.fsutil.filter import TreeFilter
from cogkit.buildkit.fsutil.patternmatcher.patterns import PatternMatcher
from cogkit.errors import ConfigError, UsageError
from cogkit.project.config import Build, Config
from cogkit.project.discover import resolve_project
from cogkit.project.weights.layers import (
    MAX_LAYERS,
    SIZE_THRESHOLD,
    ProjectFile,
    WeightLayers,
    guess_weights,
    match_weights,
)

BIG, SMALL = SIZE_THRESHOLD, SIZE_THRESHOLD - 1


def guessed(**sizes: int) -> tuple[str, ...]:
    return guess_weights(ProjectFile(path, size) for path, size in sizes.items()).paths


@pytest.mark.parametrize(
    ("files", "weights"),
    [
        ({"net.bin": BIG, "small.bin": SMALL}, ("net.bin",)),
        ({"models/net.bin": BIG, "models/config.json": 2}, ("models",)),
        ({"models/a/net.bin": BIG, "models/b/net.bin": BIG}, ("models/a", "models/b")),
        ({"models/net.bin": BIG, "models/b/net.bin": BIG}, ("models",)),
        ({"code/net.py": 1, "code/net.bin": BIG, "code/deep/net.bin": BIG}, ("code/deep", "code/net.bin")),
        ({"models/deep/util.py": 1, "models/net.bin": BIG}, ("models/net.bin",)),
        # Cog takes "models" for the folder of models_util/x.py.
        ({"models_util/x.py": 1, "models/net.bin": BIG}, ("models",)),
        ({name: BIG for name in ("a.py", "a.ipynb", "a.whl", "a.png", "a.mp4", "a.wav", "a.log")}, ()),
        ({".git/objects/x": BIG, "sub/.git/x": BIG, "__pycache__/x": BIG, ".gitfoo": BIG}, ()),
        ({}, ()),
    ],
)
def test_weights_are_known_by_cogs_signs(files: dict[str, int], weights: tuple[str, ...]) -> None:
    assert guessed(**files) == weights


def matcher(*patterns: str) -> Callable[[str], bool]:
    return PatternMatcher(patterns).matches_or_parent_matches


def test_named_weights_are_taken_whole_by_folder_only_if_all_of_it_is_meant() -> None:
    files = [ProjectFile(path, 1) for path in ("a/1.w", "a/2.w", "b/1.w", "b/x.txt", "c/d/1.w", "1.w", "run.py")]
    assert match_weights(files, matcher("**/*.w")).paths == ("1.w", "a", "c", "b/1.w")
    assert match_weights(files, matcher("b", "c/d/1.w")).paths == ("b", "c")
    assert not match_weights(files, matcher("nothing"))


def test_there_are_never_more_layers_than_an_image_can_have() -> None:
    for folders in (1, 10, 200):
        files = [ProjectFile(f"x/{number % folders}/{number}.w", 1) for number in range(400)]
        files += [ProjectFile(f"x/{number}/other", 1) for number in range(folders)]
        found = match_weights(files, matcher("**/*.w"))
        assert len(found.paths) == 400
        assert 0 < len(found.layers) <= MAX_LAYERS
        assert not any(one.startswith(f"{other}/") for one in found.layers for other in found.layers)
    root = [ProjectFile(f"{number}.w", 1) for number in range(100)] + [ProjectFile("run.py", 1)]
    assert match_weights(root, matcher("*.w")).layers == (".",)


@pytest.mark.parametrize(
    "path",
    ["net.bin", "a b/[net] {1}.bin", "!bang", "#hash", " leading", "trailing ", "a+b(c)^$|{2}", "ünï/ö", "x]y", "t\t"],
)
def test_patterns_part_the_tree_at_exactly_the_weights(path: str) -> None:
    weights = WeightLayers((path,), (path,))
    others = [".dockerignore", "other", f"{path}x", path[:-1] or "y", "net-bin"]
    only, without = TreeFilter(None, weights.only_patterns), TreeFilter(None, weights.without_patterns)
    assert kept(only, path) and kept(only, f"{path}/below/deep")
    assert not kept(without, path) and not kept(without, f"{path}/below/deep")
    for other in others:
        if "/" not in other:
            assert kept(only, other) == (other == ".dockerignore")
            assert kept(without, other)


def kept(tree: TreeFilter, path: str) -> bool:
    """Whether a walk with this filter sends the file."""
    state, parts = tree.root, path.split("/")
    for depth, name in enumerate(parts[:-1], start=1):
        if state is None:
            return True
        is_kept, state = state.enter(name, "/".join(parts[:depth]))
        if state is None:
            return is_kept
    return state is None or state.keeps(parts[-1], path)


def project(tmp_path: Path, **files: str) -> Path:
    for name, text in {"cog.yaml": "", **files}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_what_the_ignore_file_leaves_out_is_no_weight(tmp_path: Path) -> None:
    root = project(tmp_path, **{".dockerignore": "w/left\n", "w/left": "", "w/kept": "", ".cog/w/hidden": ""})
    found, notices = find_weights(resolve_project(root), Config(), CogOptions(weights_paths=("**/w",)))
    assert found.paths == ("w",)
    assert notices == ()
    assert "w/left" not in {file.path for file in sent_files(resolve_project(root))}


def test_the_command_line_goes_before_the_configuration_and_both_before_guessing(tmp_path: Path) -> None:
    root = project(tmp_path, **{"flag.w": "", "config.w": "", "looks.bin": ""})
    with (root / "looks.bin").open("r+b") as file:
        file.truncate(BIG)
    config = Config(build=Build(weights_paths=("config.w",)))
    asked = resolve_project(root)
    assert find_weights(asked, config, CogOptions(weights_paths=("/flag.w",)))[0].paths == ("flag.w",)
    assert find_weights(asked, config, CogOptions(separate_weights=True))[0].paths == ("config.w",)
    assert find_weights(asked, Config(), CogOptions(separate_weights=True))[0].paths == ("looks.bin",)


def test_a_pattern_that_matches_nothing_is_told_and_a_bad_one_refused(tmp_path: Path) -> None:
    root = resolve_project(project(tmp_path))
    _, notices = find_weights(root, Config(), CogOptions(weights_paths=("none/*",)))
    assert notices == ("--weights-path: 'none/*' matches no file",)
    _, notices = find_weights(root, Config(), CogOptions(separate_weights=True))
    assert notices == ("no weights were found to separate; name them with --weights-path",)
    with pytest.raises(UsageError, match="--weights-path"):
        find_weights(root, Config(), CogOptions(weights_paths=("[",)))
    config = Config(build=Build(weights_paths=("[",)), places={"build.weights_paths": "cog.yaml:3:1"})
    with pytest.raises(ConfigError) as caught:
        find_weights(root, config, CogOptions(separate_weights=True))
    assert caught.value.where == "cog.yaml:3:1"
