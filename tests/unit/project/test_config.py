"""cog.yaml: what is taken, what is refused and where, what only earns a warning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cogkit.cli.exit_codes import exit_code_of
from cogkit.errors import ConfigError
from cogkit.project.config import (
    Build,
    Config,
    RunCommand,
    SecretMount,
    Weight,
    WeightSource,
    config_json,
    default_image_name,
    load_config,
    parse_config,
)

MINIMAL = 'build:\n  python_version: "3.12"\nrun: run.py:Runner\n'


def build_with(*lines: str) -> str:
    return "\n".join(['build:\n  python_version: "3.12"', *(f"  {line}" for line in lines), ""])


def error(text: str, project: Path | None = None) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, project_dir=project or Path("/nonexistent"))
    return caught.value


def test_every_key_of_the_reference_is_read(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("torch==2.7.1\n")
    config = parse_config(
        """
model: registry.example.com/owner/model
build:
  gpu: true
  cuda: "12.8"
  cudnn: "9"
  python_version: "3.12"
  python_requirements: requirements.txt
  sdk_version: "0.22.0"
  system_packages: [git, ffmpeg]
  run:
    - echo one
    - command: cat /run/secrets/token
      mounts:
        - {type: secret, id: token, target: /run/secrets/token}
  pre_install: [echo two]
  weights_paths: ["checkpoints/**"]
run: run.py:Runner
train: train.py:train
concurrency: {max: 4}
environment: ["A=b", "C="]
weights:
  - name: base
    target: /src/weights
    source: {uri: hf://owner/base, include: ["*.safetensors"], exclude: ["*.onnx"]}
  - name: more
    target: /src/more
    source: [{uri: https://example.com/a}, {uri: file://./b}]
""",
        project_dir=tmp_path,
    )
    assert config.build == Build(
        gpu=True,
        cuda="12.8",
        cudnn="9",
        python_version="3.12",
        python_requirements="requirements.txt",
        sdk_version="0.22.0",
        system_packages=("git", "ffmpeg"),
        run=(
            RunCommand("echo one"),
            RunCommand("cat /run/secrets/token", (SecretMount("token", "/run/secrets/token"),)),
        ),
        pre_install=("echo two",),
        weights_paths=("checkpoints/**",),
    )
    assert (config.model, config.image) == ("registry.example.com/owner/model", "")
    assert (config.run, config.train, config.concurrency_max) == ("run.py:Runner", "train.py:train", 4)
    assert config.environment == (("A", "b"), ("C", ""))
    assert config.weights == (
        Weight("base", "/src/weights", (WeightSource("hf://owner/base", ("*.safetensors",), ("*.onnx",)),)),
        Weight("more", "/src/more", (WeightSource("https://example.com/a"), WeightSource("file://./b"))),
    )
    assert [requirement.text for requirement in config.requirements] == ["torch==2.7.1"]


def test_an_empty_file_is_an_empty_config_as_in_cog() -> None:
    assert parse_config("") == Config(project_dir=Path("."))
    assert parse_config("# nothing\n") == Config(project_dir=Path("."))


def test_empty_values_are_not_set() -> None:
    config = parse_config(build_with("run:", "system_packages: ~", "python_packages: null", "cuda:") + "image:\n")
    assert config == Config(build=Build(python_version="3.12"))


@pytest.mark.parametrize("written", ["3.10", '"3.10"', "'3.10'"])
def test_python_3_10_is_not_3_1(written: str) -> None:
    assert parse_config(f"build:\n  python_version: {written}\n").build.python_version == "3.10"


def test_numbers_count_as_the_text_they_were_written_with() -> None:
    config = parse_config(build_with("cuda: 12.10", "cudnn: 9", "sdk_version: 0.20"))
    assert (config.build.cuda, config.build.cudnn, config.build.sdk_version) == ("12.10", "9", "0.20")


def test_keys_for_anchors_are_left_alone() -> None:
    text = "x-common: &common\n  python_version: '3.12'\nbuild:\n  <<: *common\n"
    assert parse_config(text).build.python_version == "3.12"


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        # what Cog says, word for word where a script may look for it
        ("build: {python_version: ''}\n", "1:25", "invalid build.python_version: python_version is required"),
        (
            'build:\n  python_version: "3.7"\n',
            "2:19",
            'invalid build.python_version "3.7": minimum supported Python version is 3.10',
        ),
        (
            "build:\n  python_version: 3\n",
            "2:19",
            "invalid build.python_version \"3\": must include major and minor version (e.g., '3.11')",
        ),
        ("build:\n  python_version: x.1\n", "2:19", 'invalid build.python_version "x.1": invalid major version number'),
        ("build:\n  python_version: 3.x\n", "2:19", 'invalid build.python_version "3.x": invalid minor version number'),
        (
            "build:\n  python_version: 3.12 AS evil\n",
            "2:19",
            'invalid build.python_version "3.12 AS evil": invalid minor version number',
        ),
        ("build:\n  python_version: 3.12.1 x\n", "2:19", "must be major.minor or major.minor.patch"),
        (
            build_with("cuda: '10.2'"),
            "3:9",
            'invalid build.cuda "10.2": minimum supported CUDA version is 11',
        ),
        (
            build_with("cuda: 12"),
            "3:9",
            "invalid build.cuda \"12\": must include both major and minor versions (e.g., '11.8')",
        ),
        (build_with("cuda: 12.x"), "3:9", 'invalid build.cuda "12.x": invalid minor version number'),
        (
            build_with("python_requirements: nowhere.txt"),
            "3:24",
            'invalid build.python_requirements "nowhere.txt": file does not exist',
        ),
        (
            build_with("python_packages: [a]", "python_requirements: b.txt"),
            "4:24",
            "invalid build: only one of python_packages or python_requirements can be set, not both",
        ),
        ("run: runner\n", "1:6", "invalid run \"runner\": must be in the form 'run.py:Runner'"),
        ("predict: p.py\n", "1:10", "invalid predict \"p.py\": must be in the form 'predict.py:Predictor'"),
        ("train: t\n", "1:8", "invalid train \"t\": must be in the form 'train.py:Trainer'"),
        ("run: a.py:B\npredict: c.py:D\n", "2:10", "invalid run: only one of run or predict can be set"),
        ("image: a\nmodel: b/c\n", "2:8", "invalid model: 'model' and 'image' cannot both be set"),
        ("model: a/b:v1\n", "1:8", 'invalid model "a/b:v1": must be a bare repository — tags and digests are'),
        ("model: A/B\n", "1:8", "invalid repository: repository can only contain the characters `abc"),
        ("model: localhost/x\n", "1:8", "repository must be between 2 and 255 characters in length: x"),
        ("model: a_b.c/x/y\n", "1:8", "invalid repository: a_b.c is not the name of a registry"),
        ("concurrency: {max: 0}\n", "1:20", 'invalid concurrency.max "0": must be at least 1'),
        ("concurrency: {}\n", "1:14", "concurrency.max is required"),
        (
            "build:\n  python_version: '3.10'\nconcurrency:\n  max: 2\n",
            "4:8",
            'invalid concurrency.max "2": concurrency requires Python 3.11 or higher',
        ),
        ("environment: [A]\n", "1:15", 'invalid environment: environment variable "A" is not in the KEY=VALUE format'),
        ("environment:\n  - A=1\n  - A=2\n", "3:5", 'environment variable "A" is already defined'),
        (
            "environment: [PATH=/bin]\n",
            "1:15",
            'environment variable "PATH" is not allowed: reserved for internal use',
        ),
        ("environment: [NVIDIA_X=1]\n", "1:15", "reserved for internal use"),
        ("environment: [1A=x]\n", "1:15", "must be a letter"),
        ('environment: ["A=x\\ny"]\n', "1:15", "has a line break in its value"),
        (
            build_with("run:", "  - |", "    one", "    two"),
            "4:7",
            "One of the commands in 'run' contains a new line, which won't work. You need to create a new list item",
        ),
        (build_with('run: [""]'), "3:9", "a command to run is empty"),
        (build_with("run: ['echo \\']"), "3:9", "ends with a backslash"),
        (build_with("pre_install: ['']"), "3:17", "a command to run is empty"),
        (build_with("run: [{mounts: []}]"), "3:9", "build.run[0].command is required"),
        (build_with("run: [[a]]"), "3:9", "build.run[0] must be a string or a mapping, not a list"),
        (
            build_with("run: [{command: a, mounts: [{type: bind, id: a, target: /b}]}]"),
            "3:31",
            'invalid build.run[0].mounts[0].type "bind": must be "secret"',
        ),
        (
            build_with("run: [{command: a, mounts: [{type: secret, id: a}]}]"),
            "3:31",
            "build.run[0].mounts[0].target is required",
        ),
        (
            build_with("run: [{command: a, mounts: [{type: secret, id: 'a,b', target: /b}]}]"),
            "3:50",
            "cannot be written in a mount",
        ),
        (build_with("sdk_version: '0.22 --pre'"), "3:16", "must be a version"),
        (build_with("system_packages: ['']"), "3:21", "must be the name of a package"),
        # types
        ("build: text\n", "1:8", "build must be a mapping, not a string"),
        ("- a\n", "1:1", "cog.yaml must be a mapping, not a list"),
        (build_with("gpu: maybe"), "3:8", "build.gpu must be a boolean, not a string"),
        (build_with("gpu: 1"), "3:8", "build.gpu must be a boolean, not an integer"),
        (build_with("system_packages: ffmpeg"), "3:20", "build.system_packages must be a list, not a string"),
        (build_with("system_packages: [{a: b}]"), "3:21", "build.system_packages[0] must be a string, not a mapping"),
        (build_with("system_packages: [a, ~]"), "3:24", "build.system_packages[1] must be a string, not nothing"),
        ("concurrency: {max: many}\n", "1:20", "concurrency.max must be an integer, not a string"),
        ("image: [a]\n", "1:8", "image must be a string, not a list"),
    ],
)
def test_a_mistake_is_told_with_its_place(text: str, where: str, message: str) -> None:
    caught = error(text)
    assert caught.where == f"cog.yaml:{where}"
    assert message in caught.message
    assert exit_code_of(caught) == 2


@pytest.mark.parametrize(
    ("text", "where", "message", "hint"),
    [
        ("biuld: {}\n", "1:1", 'unknown key "biuld"', 'Did you mean "build"?'),
        (
            build_with("pyton_requirements: a"),
            "3:3",
            'unknown key "build.pyton_requirements"',
            '"python_requirements"?',
        ),
        (build_with("packages: []"), "3:3", 'unknown key "build.packages"', '"system_packages"?'),
        (build_with("zzz: 1"), "3:3", 'unknown key "build.zzz"', "Allowed here: gpu, python_version,"),
        ("concurrency: {maximum: 1}\n", "1:15", 'unknown key "concurrency.maximum"', 'Did you mean "max"?'),
        (
            build_with("run: [{comand: a}]"),
            "3:10",
            'unknown key "build.run[0].comand"',
            'Did you mean "command"?',
        ),
    ],
)
def test_a_misspelt_key_gets_the_nearest_one(text: str, where: str, message: str, hint: str) -> None:
    caught = error(text)
    assert (caught.where, caught.message) == (f"cog.yaml:{where}", message)
    assert hint in (caught.hint or "")


@pytest.mark.parametrize(
    ("entry", "where", "message"),
    [
        ("{target: /a, source: {uri: a}}", "3:5", "invalid weights[0].name: name is required"),
        ("{name: A B, target: /a, source: {uri: a}}", "3:12", "must contain only lowercase"),
        ("{name: a, source: {uri: a}}", "3:5", "invalid weights[0].target: target is required"),
        ("{name: a, target: b, source: {uri: a}}", "3:23", "target must be an absolute path"),
        ("{name: a, target: /, source: {uri: a}}", "3:23", 'target must not be the container root "/"'),
        ("{name: a, target: /b}", "3:5", "invalid weights[0].source: source is required"),
        ("{name: a, target: /b, source: []}", "3:35", "invalid weights[0].source: source is required"),
        ("{name: a, target: /b, source: {}}", "3:35", "invalid weights[0].source.uri: uri is required"),
        ("{name: a, target: /b, source: {uri: c, include: ['!d']}}", "3:54", "negation patterns (starting with '!')"),
        ("{name: a, target: /b, source: {uri: c, exclude: [' ']}}", "3:54", "pattern must not be empty"),
        ("{name: a, target: /b, source: {uri: c, exclude: ['d\\e']}}", "3:54", "must use forward slashes"),
        ("[a]", "3:5", "weights[0] must be a mapping, not a list"),
    ],
)
def test_a_weight_that_is_not_right_is_told(entry: str, where: str, message: str) -> None:
    caught = error(f"model: a/b\nweights:\n  - {entry}\n")
    assert caught.where == f"cog.yaml:{where}"
    assert message in caught.message


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("a, target: /x", "a, target: /y", 'invalid weights[1].name "a": duplicate weight name'),
        ("a, target: /x", "b, target: /x/", "duplicate weight target"),
        ("a, target: /x", "b, target: /x/y", 'target overlaps with "/x"; weight targets must be disjoint'),
        ("a, target: /x/y", "b, target: /x", 'target overlaps with "/x/y"'),
    ],
)
def test_weights_do_not_get_into_each_others_way(first: str, second: str, message: str) -> None:
    lines = [f"  - {{name: {one}, source: {{uri: u}}}}" for one in (first, second)]
    caught = error("\n".join(["model: a/b", "weights:", *lines]))
    assert message in caught.message
    assert (caught.where or "").startswith("cog.yaml:4:")


def test_weights_need_a_model_and_say_how() -> None:
    weights = "weights: [{name: a, target: /b, source: {uri: c}}]\n"
    assert "weights require 'model' in cog.yaml" in error(weights).message
    assert "weights require 'model', not 'image'" in error("image: a\n" + weights).message


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    caught = error("run: x\nbuild:\n  python_version: '2.7'\n  gpu: perhaps\nimagee: a\n")
    assert caught.where == "cog.yaml:1:6"
    assert (caught.detail or "").splitlines() == [
        'cog.yaml:3:19: invalid build.python_version "2.7": minimum supported Python version is 3.10',
        "cog.yaml:4:8: build.gpu must be a boolean, not a string",
        'cog.yaml:5:1: unknown key "imagee"',
    ]


@pytest.mark.parametrize(
    ("text", "field", "where", "message"),
    [
        ("predict: p.py:P\n", "predict", "1:1", 'deprecated field "predict": use "run" instead'),
        (
            build_with("python_packages: [a]"),
            "build.python_packages",
            "3:3",
            'deprecated field "build.python_packages": use "build.python_requirements" instead',
        ),
        (
            build_with("pre_install: [a]"),
            "build.pre_install",
            "3:3",
            'deprecated field "build.pre_install": use "build.run" instead',
        ),
        (
            "concurrency: {max: 1}\n",
            "concurrency.max",
            "1:15",
            'deprecated field "concurrency.max": use "@cog.concurrent(max=...)" instead',
        ),
        (build_with("fast: true"), "build.fast", "3:3", '"build.fast" has no effect'),
        (build_with("cuda: '12.8'"), "build.cuda", "3:3", 'chooses no CUDA image without "build.gpu: true"'),
    ],
)
def test_what_should_change_is_a_warning_and_told_once(text: str, field: str, where: str, message: str) -> None:
    (warning,) = parse_config(text).warnings
    assert (warning.field, warning.where) == (field, f"cog.yaml:{where}")
    assert message in warning.message
    assert str(warning) == f"cog.yaml:{where}: {warning.message}"


def test_empty_deprecated_lists_warn_of_nothing() -> None:
    assert parse_config(build_with("python_packages: []", "pre_install: []")).warnings == ()


def test_a_config_without_fault_has_no_warnings() -> None:
    assert parse_config(MINIMAL).warnings == ()


@pytest.mark.parametrize(
    "model", ["registry.example.com/acme/my-model", "acme/my-model", "my-model", "localhost:5000/acme/my-model"]
)
def test_repositories_that_cog_takes_as_model(model: str) -> None:
    assert parse_config(f"model: {model}\n").model == model


# GPU completion


def test_a_gpu_build_without_frameworks_gets_cogs_default_cuda() -> None:
    config = parse_config(build_with("gpu: true"))
    assert (config.build.cuda, config.build.cudnn) == ("11.8", "8")


def test_a_gpu_build_with_torch_gets_the_newest_cuda_it_has_builds_for(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("torch==2.7.1\n")
    config = parse_config(build_with("gpu: true", "python_requirements: r.txt"), project_dir=tmp_path)
    assert (config.build.cuda, config.build.cudnn) == ("12.8", "9")


def test_torch_without_version_is_refused_for_gpus_at_its_line(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("numpy\ntorch\n")
    caught = error(build_with("gpu: true", "python_requirements: r.txt"), tmp_path)
    assert caught.message == "torch version must be specified when using CUDA"
    assert caught.where == "r.txt:2"


def test_a_python_version_that_is_not_set_is_chosen_with_a_warning() -> None:
    config = parse_config("build:\n  python_packages: [torch==2.0.1]\n")
    assert config.build.python_version == "3.11"
    (warning,) = (one for one in config.warnings if one.field == "build.python_version")
    assert warning.message == (
        '"build.python_version" is not set: using 3.11, the newest that Cog knows for torch 2.0.1. '
        'Pin it: python_version: "3.11"'
    )
    assert json.loads(config_json(config))["build"]["python_version"] == "3.11"
    assert parse_config("build: {gpu: true}\n").build.python_version == "3.13"
    assert parse_config("image: a\n").build.python_version == ""


def test_torch_without_version_is_a_warning_where_cuda_is_given(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("numpy\ntorch\n")
    text = build_with("gpu: true", "cuda: '12.1'", "python_requirements: r.txt")
    config = parse_config(text, project_dir=tmp_path)
    assert (config.build.cuda, config.build.cudnn) == ("12.1", "8")
    assert [warning.message for warning in config.warnings] == [
        "torch has no version, so pip installs the newest, with the CUDA libraries it brings instead of CUDA 12.1. "
        "Pin it; the newest that Cog knows for CUDA 12.1 is torch==2.5.1."
    ]


def test_a_requirements_file_beside_a_config_in_a_folder_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "cog.yaml").write_text(build_with("python_requirements: r.txt"))
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "sub" / "cog.yaml", project_dir=tmp_path)
    assert caught.value.hint == "The path is relative to the project's folder, not to sub."
    (tmp_path / "sub" / "r.txt").touch()
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "sub" / "cog.yaml", project_dir=tmp_path)
    assert caught.value.hint == "The path is relative to the project's folder, not to sub. Write sub/r.txt."


def test_versions_that_exclude_each_other_are_told_at_the_key() -> None:
    caught = error(build_with("gpu: true", "cuda: '11.8'", "cudnn: '9'"))
    assert caught.where == "cog.yaml:4:9"
    assert caught.message == (
        "the specified CUDA version 11.8 is not compatible with CuDNN 9.\nCompatible CuDNN versions are: 8"
    )


def test_a_python_that_a_framework_has_no_wheels_for_is_a_warning() -> None:
    config = parse_config("build:\n  python_version: '3.13'\n  python_packages: ['tensorflow==2.15.0']\n")
    assert "tensorflow 2.15.0 has no wheels for Python 3.13; it has them for 3.9, 3.10, 3.11." in [
        warning.message for warning in config.warnings
    ]


# files


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "cog.yaml")
    assert "cog.yaml not found" in caught.value.message
    assert "cogkit init" in (caught.value.hint or "")


def test_a_folder_in_place_of_the_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "cog.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot read the config file: Is a directory"):
        load_config(tmp_path / "cog.yaml")


def test_a_folder_in_place_of_the_requirements_is_told(tmp_path: Path) -> None:
    (tmp_path / "r.txt").mkdir()
    caught = error(build_with("python_requirements: r.txt"), tmp_path)
    assert caught.message == "cannot read the requirements file: Is a directory"
    assert caught.where == "r.txt"


def test_places_name_the_file_as_it_was_given(tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    folder.mkdir()
    (folder / "my.yaml").write_text("run: x\n")
    with pytest.raises(ConfigError) as caught:
        load_config(folder / "my.yaml", project_dir=tmp_path)
    assert caught.value.where == "configs/my.yaml:1:6"


def test_later_checks_can_ask_for_the_place_of_a_key() -> None:
    config = parse_config(MINIMAL)
    assert config.where("run") == "cog.yaml:3:6"
    assert config.where("train") == "cog.yaml"


# what becomes of it


def test_the_label_has_cogs_keys_order_and_escapes() -> None:
    config = parse_config(
        """
image: a/b
predict: p.py:P
build:
  gpu: false
  python_version: 3.12
  python_packages: ["a>=1", "b"]
  run: ["echo é && true", {command: c, mounts: [{type: secret, id: i, target: /t}]}]
concurrency: {max: 2}
environment: [Z=1, A=2]
"""
    )
    assert config_json(config) == (
        '{"build":{"python_version":"3.12","python_packages":["a\\u003e=1","b"],'
        '"run":[{"command":"echo é \\u0026\\u0026 true"},'
        '{"command":"c","mounts":[{"type":"secret","id":"i","target":"/t"}]}]},'
        '"image":"a/b","predict":"p.py:P","concurrency":{"max":2},"environment":["Z=1","A=2"]}'
    )


def test_the_label_writes_one_source_of_a_weight_plain_and_several_as_list() -> None:
    config = parse_config(
        "model: a/b\nweights:\n"
        "  - {name: x, target: /x, source: [{uri: u}]}\n"
        "  - {name: y, target: /y, source: [{uri: u}, {uri: v}]}\n"
    )
    weights = json.loads(config_json(config))["weights"]
    assert [weight["source"] for weight in weights] == [{"uri": "u"}, [{"uri": "u"}, {"uri": "v"}]]


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("hello", "cog-hello"),
        ("My Model", "cog-my-model"),
        ("cog-model", "cog-model"),
        ("Ünder_score", "cog-nderscore"),
        ("a" * 40, "cog-" + "a" * 26),
        # What is not a name, Cog finds at the end of the build.
        ("a" * 25 + "-b", "cog-" + "a" * 25),
        ("My Model!-", "cog-my-model"),
        ("Модель", "cog-model"),
        ("cog-", "cog-model"),
        ("--", "cog-model"),
    ],
)
def test_the_image_of_a_project_without_a_name_is_called_as_in_cog(tmp_path: Path, folder: str, name: str) -> None:
    (tmp_path / folder).mkdir()
    assert default_image_name(tmp_path / folder) == name


_KEYS = st.sampled_from(
    [
        *("build", "image", "model", "run", "predict", "train", "concurrency", "environment", "weights", "x-a"),
        *("gpu", "cuda", "cudnn", "python_version", "system_packages", "python_packages", "pre_install"),
        *("max", "name", "target", "source", "uri", "include", "command", "mounts", "type", "id"),
    ]
)
_LEAVES = st.sampled_from(
    ["3.12", "true", "~", "a.py:B", "A=b", "/x", "secret", "", "1", "'q'", "12.8", "hf://a", "*.bin"]
)
_DOCUMENTS = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(_KEYS, inner, max_size=4).map(
            lambda pairs: "{" + ", ".join(f"{key}: {value}" for key, value in pairs.items()) + "}"
        ),
    ),
    max_leaves=12,
)


@given(_DOCUMENTS)
def test_any_document_is_a_config_or_a_config_error_with_a_place(text: str) -> None:
    try:
        parse_config(text, project_dir=Path("/nonexistent"))
    except ConfigError as caught:
        assert (caught.where or "").startswith("cog.yaml")
