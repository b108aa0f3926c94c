"""The command line: what the flags become, what errors look like, and what starting it costs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cogkit import __version__
from cogkit.building import build as build_run
from cogkit.building.build import BuildResult
from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions, CogOptions, NamedContext, OutputSpec
from cogkit.buildkit.connect.address import TlsConfig
from cogkit.buildkit.errors import BuildError, BuilderUnreachableError
from cogkit.cli.main import app, main
from cogkit.errors import CogkitError, ConfigError, LockNotAcquiredError

DIGEST = "sha256:" + "d" * 64
HEAVY = (
    "grpc",
    "google.protobuf",
    "rich",
    "yaml",
    "asyncio",
    "pydantic",
    "cogkit.building.build",
    "cogkit.buildkit.client",
)
IMAGE_ID = "sha256:" + "1" * 64


class FakeBuild:
    """Stands in the place of `cogkit.building.build.build` and remembers what it was asked for."""

    def __init__(self) -> None:
        self.options: BuildOptions | None = None
        self.problem: BaseException | None = None

    async def __call__(self, options: BuildOptions, observer: BuildObserver) -> BuildResult:
        self.options = options
        if self.problem is not None:
            raise self.problem
        return BuildResult("ref", ("a:1", "b"), DIGEST, IMAGE_ID, {})


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch) -> FakeBuild:
    fake = FakeBuild()
    monkeypatch.setattr(build_run, "build", fake)
    monkeypatch.delenv("BUILDKIT_PROGRESS", raising=False)
    return fake


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "BUILDKIT_PROGRESS",
        "BUILDKIT_HOST",
        "COGKIT_DEBUG",
        "FORCE_COLOR",
        "SOURCE_DATE_EPOCH",
        "COG_OPENAPI_SCHEMA",
    ):
        monkeypatch.delenv(name, raising=False)


def test_every_flag_of_build_reaches_the_options(build: FakeBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_ENV", "found")
    code = main(
        [
            *("build", "--context", "dir", "-f", "Dockerfile.dev", "-t", "a:1", "--tag", "b", "--target", "stage"),
            *("--build-arg", "A=1", "--build-arg", "FROM_ENV", "--build-arg", "NOT_SET", "--label", "l=x"),
            *("--platform", "linux/amd64,linux/aarch64", "--no-cache", "--pull", "--build-context", "src=."),
            *("-o", "type=oci,dest=x.tar", "--output", "out", "--push", "--progress", "quiet"),
            *("--metadata-file", "m.json", "--iidfile", "iid", "--addr", "tcp://host:1", "--lock-timeout", "1.5"),
            *("--tlscacert", "ca", "--tlscert", "cert", "--tlskey", "key", "--tlsservername", "name"),
            *("--uv-image", "uv:1"),
        ]
    )
    assert code == 0
    assert build.options == BuildOptions(
        context="dir",
        file="Dockerfile.dev",
        tags=("a:1", "b"),
        target="stage",
        build_args={"A": "1", "FROM_ENV": "found"},
        labels={"l": "x"},
        platforms=("linux/amd64", "linux/arm64"),
        no_cache=True,
        pull=True,
        build_contexts=(NamedContext("src", ".", local=True),),
        outputs=(OutputSpec("oci", "x.tar"), OutputSpec("local", "out")),
        push=True,
        metadata_file=Path("m.json"),
        iidfile=Path("iid"),
        address="tcp://host:1",
        tls=TlsConfig(Path("ca"), Path("cert"), Path("key"), "name"),
        lock_timeout=1.5,
        uv_image="uv:1",
    )


def test_the_flags_of_a_cog_project_reach_the_options(build: FakeBuild) -> None:
    code = main(
        [
            *("build", "--separate-weights", "--weights-path", "a/*", "--weights-path=b", "--use-cog-base-image=false"),
            *(
                "--openapi-schema",
                "s.json",
                "--skip-schema-validation",
                "--strip",
                "--precompile=1",
                "--timestamp",
                "7",
            ),
        ]
    )
    assert code == 0
    assert build.options is not None
    assert build.options.timestamp == 7
    assert build.options.cog == CogOptions(
        separate_weights=True,
        weights_paths=("a/*", "b"),
        use_cog_base_image=False,
        openapi_schema=Path("s.json"),
        skip_schema_validation=True,
        strip=True,
        precompile=True,
    )
    for value, wanted in (("auto", True), ("TRUE", True), ("false", False)):
        assert main(["build", f"--use-cuda-base-image={value}"]) == 0
        assert build.options.cog.use_cuda_base_image is wanted
    assert main(["build", "--dockerfile", "D"]) == 0
    assert build.options.cog.dockerfile == Path("D")


def test_the_environment_of_cog_counts(build: FakeBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COG_OPENAPI_SCHEMA", "env.json")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    for flags, timestamp in (
        ([], 5),
        (["--timestamp=6"], 6),
        (["--timestamp", "-1"], None),
        (["--build-arg", "SOURCE_DATE_EPOCH=8"], None),
    ):
        assert main(["build", *flags]) == 0
        assert build.options is not None
        assert build.options.timestamp == timestamp
        assert build.options.cog.openapi_schema == Path("env.json")
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    assert main(["build"]) == 2


def test_the_time_of_the_context_is_left_to_the_frontend(build: FakeBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "context")
    for flags, build_args, timestamp in (
        ([], {"SOURCE_DATE_EPOCH": "context"}, None),
        (["--timestamp", "6"], {}, 6),
        (["--build-arg", "SOURCE_DATE_EPOCH=7"], {"SOURCE_DATE_EPOCH": "7"}, None),
    ):
        assert main(["build", *flags]) == 0
        assert build.options is not None
        assert (build.options.build_args, build.options.timestamp) == (build_args, timestamp)


def test_the_dockerfile_that_is_shown_is_that_of_a_build_with_the_same_timestamp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    from cogkit.building.recipes import read_recipe

    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    wanted = read_recipe(BuildOptions(timestamp=5)).dockerfile(BuildOptions(timestamp=5)).encode()
    capfdbinary.readouterr()
    assert main(["dockerfile", "--timestamp", "5"]) == 0
    assert capfdbinary.readouterr().out == wanted
    assert main(["dockerfile"]) == 0
    assert capfdbinary.readouterr().out != wanted
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "5")
    assert main(["dockerfile"]) == 0
    assert capfdbinary.readouterr().out == wanted


def test_registry_and_no_color_are_taken_before_and_behind_the_command(
    build: FakeBuild, monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (
        ["--registry=a.example", "--no-color", "build"],
        ["build", "--registry", "a.example", "--no-color"],
    ):
        monkeypatch.setenv("COG_REGISTRY_HOST", "")
        monkeypatch.setenv("NO_COLOR", "")
        assert main(arguments) == 0
        assert (os.environ["COG_REGISTRY_HOST"], os.environ["NO_COLOR"]) == ("a.example", "1")


def test_without_flags_the_options_are_the_defaults(build: FakeBuild) -> None:
    assert main(["build"]) == 0
    assert build.options == BuildOptions()


def test_a_file_without_a_name_counts_as_not_given(build: FakeBuild) -> None:
    assert main(["build", "--iidfile", "", "--metadata-file="]) == 0
    assert build.options == BuildOptions()


def test_the_folder_may_be_an_argument_as_with_buildx_but_not_twice(
    build: FakeBuild, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["build", "dir"]) == 0
    assert build.options is not None and build.options.context == "dir"
    assert main(["build", "dir", "--context", "other"]) == 2
    assert "error: two contexts to build: dir and --context other\n" in capsys.readouterr().err


def test_quiet_prints_the_image_id_and_nothing_else(build: FakeBuild, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--progress", "quiet"]) == 0
    assert capfd.readouterr() == (f"{IMAGE_ID}\n", "")


def test_an_output_on_stdout_has_it_for_itself(build: FakeBuild, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--progress", "quiet", "-o", "-"]) == 0
    assert capfd.readouterr() == ("", f"{IMAGE_ID}\n")


def test_plain_says_on_stderr_what_was_built(build: FakeBuild, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["build"]) == 0
    assert capfd.readouterr() == ("", f"Image built as a:1 and b ({DIGEST})\n")


def test_rawjson_says_nothing_but_json(build: FakeBuild, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--progress", "rawjson"]) == 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("problem", "code"),
    [
        (ConfigError("bad"), 2),
        (BuildError("bad"), 1),
        (BuilderUnreachableError("bad"), 3),
        (LockNotAcquiredError("bad"), 4),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_exit_code(
    build: FakeBuild, problem: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    build.problem = problem
    assert main(["build"]) == code
    assert "Traceback" not in capsys.readouterr().err


def test_an_error_says_what_where_and_what_to_do(build: FakeBuild, capsys: pytest.CaptureFixture[str]) -> None:
    build.problem = ConfigError(
        "unknown key 'pythn'", where="cog.yaml:3:5", hint="did you mean 'python'?", detail="x\n"
    )
    assert main(["build", "--progress", "rawjson"]) == 2
    expected = "error: unknown key 'pythn'\n  at: cog.yaml:3:5\n  hint: did you mean 'python'?\nx\n"
    assert capsys.readouterr().err == expected


def test_a_failed_build_shows_the_dockerfile_before_the_error(
    build: FakeBuild, capsys: pytest.CaptureFixture[str]
) -> None:
    build.problem = BuildError("exit code: 1", where="Dockerfile:2", detail="Dockerfile:2\n---\n")
    assert main(["build", "--progress", "rawjson"]) == 1
    assert capsys.readouterr().err == "Dockerfile:2\n---\nerror: exit code: 1\n  at: Dockerfile:2\n"


def test_what_the_terminal_would_obey_is_taken_out_of_errors(
    build: FakeBuild, capsys: pytest.CaptureFixture[str]
) -> None:
    build.problem = CogkitError("bad \x1b[2Jname \x1b]0;title\x07.", where="a\nb", hint="\x9bJ!")
    assert main(["build", "--progress", "rawjson"]) == 1
    assert capsys.readouterr().err == "error: bad name .\n  at: a b\n  hint: !\n"


def test_a_mistake_of_ours_is_one_line_and_a_traceback_only_on_request(
    build: FakeBuild, capsys: pytest.CaptureFixture[str]
) -> None:
    build.problem = RuntimeError("oops")
    assert main(["build"]) == 1
    shown = capsys.readouterr().err
    assert "internal error: RuntimeError: oops\n  hint: this is a bug in cogkit; run again with --debug" in shown
    assert "Traceback" not in shown
    for arguments in (["--debug", "build"], ["build", "--debug"]):
        assert main(arguments) == 1
        shown = capsys.readouterr().err
        assert "Traceback" in shown and "internal error: RuntimeError: oops" in shown


def test_debug_shows_the_traceback_of_a_users_error_too(build: FakeBuild, capsys: pytest.CaptureFixture[str]) -> None:
    build.problem = ConfigError("bad")
    assert main(["build", "--debug"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown and shown.endswith("error: bad\n")


def test_a_broken_pipe_of_the_builder_is_not_taken_for_one_of_stdout(
    build: FakeBuild, capsys: pytest.CaptureFixture[str]
) -> None:
    build.problem = BrokenPipeError(32, "Broken pipe")
    assert main(["build"]) == 1
    assert "internal error: BrokenPipeError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pushh"], "no such command 'pushh'. Did you mean 'push'?\n  hint: see cogkit --help"),
        (["build", "--zzz"], "no such option: --zzz\n  hint: see cogkit build --help"),
        (["build", "a", "b"], "got unexpected extra argument(s) (b)\n  hint: see cogkit build --help"),
        (["build", "--progress", "loud"], "'loud' is not one of 'auto', 'tty', 'plain', 'quiet', 'rawjson'"),
        (["build", "--lock-timeout", "-1"], "invalid value for '--lock-timeout'"),
        (["build", "--lock-timeout", "soon"], "invalid value for '--lock-timeout'"),
        (["build", "-t", "UPPER"], "--tag 'UPPER': the repository 'UPPER' must be lower-case"),
        (["build", "-o", "type=zip"], "--output type=zip: unknown type 'zip'"),
        (["build", "--platform", "pdp11"], "--platform 'pdp11': unknown operating system or architecture"),
        (["build", "--build-context", "x"], "--build-context x: not NAME=VALUE"),
        (["build", "--build-arg", "=x"], "--build-arg '=x': the name is missing"),
        (["build", "--uv-image", "A"], "--uv-image 'A': the repository 'A' must be lower-case"),
    ],
)
def test_a_mistake_on_the_command_line_has_exit_code_2_and_the_same_look(
    build: FakeBuild, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert says in shown
    assert build.options is None


def test_a_live_view_needs_a_terminal(build: FakeBuild, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["build", "--progress", "tty"]) == 2
    assert "error: --progress tty: standard error is not a terminal\n  hint: use" in capsys.readouterr().err


def test_buildkit_progress_is_the_default_and_the_flag_has_the_last_word(
    build: FakeBuild, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BUILDKIT_PROGRESS", "quiet")
    assert main(["build"]) == 0
    assert capfd.readouterr().out == f"{IMAGE_ID}\n"
    assert main(["build", "--progress", "plain"]) == 0
    assert capfd.readouterr().out == ""


def test_the_version_is_shown_by_flag_and_by_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"cogkit {__version__}\n" * 2


@pytest.mark.parametrize("command", ["build", "init", "dockerfile", "debug", "context", "version"])
def test_every_command_has_a_page_with_an_example(command: str) -> None:
    page = CliRunner().invoke(app, [command, "--help"])
    assert page.exit_code == 0
    assert "Example" in page.output and f"cogkit {'dockerfile' if command == 'debug' else command}" in page.output


def test_without_a_command_the_page_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Usage: cogkit" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["build", "--help"]])
def test_help_and_version_do_not_pay_for_what_only_a_build_needs(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom cogkit.cli.main import main\n"
        f"assert main({arguments!r}) == 0\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_only_the_command_that_was_asked_for_is_imported() -> None:
    script = (
        "import sys\nfrom cogkit.cli.main import main\nassert main(['version']) == 0\n"
        "print([name for name in ('build', 'push', 'login') if f'cogkit.cli.{name}' in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"


def test_completion_knows_commands_and_flags() -> None:
    environment = {"_COGKIT_COMPLETE": "complete_bash", "COMP_WORDS": "cogkit build --metad", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "cogkit"], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.stdout.split() == ["--metadata-file"]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "cogkit", "build", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert errors == ""
    assert process.returncode == 1


def test_init_writes_what_is_missing_and_keeps_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.py").write_text("mine")
    assert main(["init"]) == 0
    assert capsys.readouterr().out.split("\n")[:4] == [
        "created cog.yaml",
        "kept    run.py",
        "created requirements.txt",
        "created .dockerignore",
    ]
    assert (tmp_path / "run.py").read_text() == "mine"


@pytest.mark.parametrize("command", ["dockerfile", "debug"])
def test_dockerfile_prints_the_one_that_is_there_byte_for_byte(
    command: str, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    text = b"FROM scratch\n# \xff\xc3\xa9\r\nCOPY . /"
    (tmp_path / "Dockerfile").write_bytes(text)
    assert main([command, str(tmp_path)]) == 0
    assert capfdbinary.readouterr().out == text


def test_dockerfile_prints_what_is_generated_for_a_project(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cog.yaml").write_text('build:\n  python_version: "3.11"\n')
    (tmp_path / "sub").mkdir()
    assert main(["dockerfile", "--context", str(tmp_path / "sub"), "--uv-image", "ghcr.io/astral-sh/uv:0.9"]) == 0
    shown = capfd.readouterr().out
    assert "FROM python:3.11-slim" in shown
    assert "ghcr.io/astral-sh/uv:0.9" in shown
    assert not (tmp_path / ".cog").exists()


@pytest.mark.parametrize(
    ("references", "reason"),
    [
        ("", "no predict or train reference found in cog.yaml"),
        ("run: run.py:Runner\n", "run.py not found"),
        ("run: broken.py:Runner\n", "Runner not found in broken.py"),
        (
            "model: a.example/team/b\nrun: run.py:Runner\nweights: [{name: w, source: {uri: hf://a/b}, target: /w}]\n",
            "weights.lock is out of sync",
        ),
    ],
)
def test_what_stops_a_build_is_told_with_the_dockerfile_that_is_shown_and_stops_the_build(
    references: str, reason: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cog.yaml").write_text(f'{references}build:\n  python_version: "3.11"\n')
    (tmp_path / "broken.py").write_text("import torch\n")
    assert main(["dockerfile", str(tmp_path)]) == 0
    shown = capfd.readouterr()
    assert "FROM python:3.11-slim" in shown.out
    assert "a build would stop here: " in shown.err
    assert reason in shown.err

    assert main(["build", str(tmp_path), "--addr", f"unix://{tmp_path}/nobody.sock"]) == 2
    assert reason in capfd.readouterr().err


@pytest.mark.parametrize("said", [("build", "--debug"), ("--debug", "build"), ("build",)])
def test_debug_tells_in_cogs_words_where_the_sdk_comes_from(
    said: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cog.yaml").write_text('run: run.py:run\nbuild:\n  python_version: "3.11"\n')
    (tmp_path / "run.py").write_text("def run() -> str:\n    return ''\n")
    wheel = tmp_path / "cog-0.22.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    monkeypatch.setenv("COG_SDK_WHEEL", str(wheel))
    assert main([*said, str(tmp_path), "--addr", f"unix://{tmp_path}/nobody.sock"]) == 3
    assert (f"Using local cog wheel: {wheel}" in capfd.readouterr().err) is ("--debug" in said)


def test_the_sdk_of_the_environment_decides_whether_a_schema_can_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run.py").write_text("def run() -> str:\n    return ''\n")
    (tmp_path / "cog-0.16.9-py3-none-any.whl").write_bytes(b"")
    build = ["build", str(tmp_path), "--addr", f"unix://{tmp_path}/nobody.sock"]
    for pinned, variable, code in (
        ("0.17.0", "pypi:0.16.9", 2),
        ("0.16.9", "", 2),
        ("0.16.9", "pypi:0.17.0", 3),
        ("0.16.9", str(tmp_path / "cog-0.16.9-py3-none-any.whl"), 3),
    ):
        (tmp_path / "cog.yaml").write_text(
            f'run: run.py:run\nbuild:\n  python_version: "3.11"\n  sdk_version: "{pinned}"\n'
        )
        monkeypatch.setenv("COG_SDK_WHEEL", variable)
        assert main(build) == code, (pinned, variable)
        refused = "SDK version 0.16.9 is not supported by static schema generation" in capfd.readouterr().err
        assert refused is (code == 2)


@pytest.mark.parametrize("options", [["--skip-schema-validation"], ["--openapi-schema", "schema.json"]])
def test_a_project_without_a_predictor_gets_as_far_as_the_builder_if_it_needs_no_schema_made(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "schema.json").write_text(
        json.dumps({"openapi": "3.0.2", "info": {"title": "Cog", "version": "1"}, "paths": {}})
    )
    (tmp_path / "cog.yaml").write_text('build:\n  python_version: "3.11"\n')
    assert main(["build", *options, "--addr", f"unix://{tmp_path}/nobody.sock"]) == 3


def test_context_json_is_one_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch")
    (tmp_path / ".dockerignore").write_text("# no logs\n\n*.log\n")
    (tmp_path / "a.log").write_text("12345")
    (tmp_path / ".cog").mkdir()
    assert main(["context", str(tmp_path), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document == {
        "context": str(tmp_path),
        "ignore_file": str(tmp_path / ".dockerignore"),
        "total": {"files": 2, "folders": 0, "bytes": 29},
        "files": [{"path": ".dockerignore", "bytes": 17}, {"path": "Dockerfile", "bytes": 12}],
        "folders": [],
        "left_out": [{"pattern": "*.log", "line": 3, "paths": ["a.log"], "files": 1, "bytes": 5}],
        "hidden": [".cog"],
        "warnings": [],
    }
