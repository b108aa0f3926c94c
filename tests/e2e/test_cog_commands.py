"""``push``, ``login``, ``doctor`` and ``dockerfile`` with a real builder and real registries."""

from __future__ import annotations

import json
import os
import pty
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit, StartCogkit
from tests.e2e.test_build import COG_YAML, RUN_PY, logged, succeeded
from tests.real.registry import Registry
from tests.real.token_server import TokenServer

USER, PASSWORD = "me", "s3cret: päss word"


@pytest.fixture
def cogkit_env(cogkit_env: dict[str, str | None], tmp_path: Path) -> dict[str, str | None]:
    """With an empty Docker config of the test's own."""
    return cogkit_env | {"DOCKER_CONFIG": str(tmp_path / "docker"), "XDG_CONFIG_HOME": str(tmp_path / "config")}


@pytest.fixture(scope="module")
def basic_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    started = Registry(tmp_path_factory.mktemp("basic-registry"), user=(USER, PASSWORD))
    yield started
    started.stop()


# ---- push


def test_push_goes_where_cog_yaml_says_and_to_no_name_at_all_with_cogs_words(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry
) -> None:
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY, "deep/down/x": ""})
    refused = run_cogkit("push", cwd=project)
    assert refused.returncode == 2
    assert "To push images, you must either set the 'image' option in cog.yaml or pass an image name" in refused.stderr

    (project / "cog.yaml").write_text(f"image: {base_images.host}/from-yaml\n{COG_YAML}")
    succeeded(run_cogkit("push", cwd=project / "deep" / "down", timeout=900))
    labels = base_images.config("from-yaml", "latest")["config"]["Labels"]
    assert labels["run.cog.push_id"][14] == "7"
    assert labels["run.cog.has_init"] == "true"

    succeeded(run_cogkit("push", f"{base_images.host}/argument:v1", cwd=project))
    assert base_images.tags("argument") == ["v1"]


def test_push_of_a_model_takes_its_tag_from_the_environment(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry
) -> None:
    project = context_tree({"cog.yaml": f"model: {base_images.host}/team/model\n{COG_YAML}", "run.py": RUN_PY})
    succeeded(run_cogkit("push", cwd=project, env={"COG_MODEL_TAG": "v2"}, timeout=900))
    assert base_images.tags("team/model") == ["v2"]
    refused = run_cogkit("push", "other", cwd=project)
    assert refused.returncode == 2
    assert "positional image argument not supported with 'model' config" in refused.stderr


# ---- a Dockerfile of one's own


def test_own_dockerfile_becomes_a_cog_image(
    context_tree: MakeTree, run_cogkit: RunCogkit, base_images: Registry, tmp_path: Path
) -> None:
    project = context_tree(
        {
            "cog.yaml": COG_YAML + "concurrency:\n  max: 1\n",
            "run.py": RUN_PY,
            "docker/Own": (
                "FROM busybox AS other\nFROM python:3.11-slim\nENV OWN=yes\nLABEL own=label\nWORKDIR /src\n"
                "COPY run.py .\nRUN echo made > /made && pip install cowsay==6.1\n"
            ),
        }
    )
    image = f"{base_images.host}/own"
    build = ("build", project, "-t", image, "--push", "--dockerfile", project / "docker" / "Own")
    succeeded(run_cogkit(*build, timeout=900))
    config = base_images.config("own", "latest")["config"]
    assert {"OWN=yes", "COG_MAX_CONCURRENCY=1"} <= set(config["Env"])
    assert config["Labels"]["own"] == "label"
    assert "cowsay==6.1" in config["Labels"]["run.cog.pip_freeze"]
    schema = config["Labels"]["run.cog.openapi_schema"]
    assert json.loads(schema)["openapi"] == "3.0.2"
    look = context_tree(
        {"Dockerfile": f"FROM {image}\nRUN cat /made /src/.cog/openapi_schema.json && ls /src\n"}, name="look"
    )
    shown = logged(succeeded(run_cogkit("build", look, "--progress=rawjson", "--no-cache")))
    assert "made\n" in shown and schema in shown and "run.py" in shown


def test_exclusive_flags_are_refused_in_cogs_words(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY})
    for command in ("build", "push", "dockerfile"):
        flags = ("--use-cog-base-image=false", "--use-cuda-base-image", "false")
        refused = run_cogkit(command, *flags, cwd=project)
        assert refused.returncode == 2
        assert (
            "The flags --use-cog-base-image and --use-cuda-base-image are mutually exclusive: "
            "you can only set one of them." in refused.stderr
        )


# ---- login


def test_login_is_checked_kept_privately_and_good_for_a_push(
    context_tree: MakeTree, run_cogkit: RunCogkit, basic_registry: Registry, tmp_path: Path
) -> None:
    host = basic_registry.host
    wrong = run_cogkit("login", host, "-u", USER, "--password-stdin", input="mistyped\n")
    assert wrong.returncode == 1
    assert "mistyped" not in wrong.stderr
    assert "refuses this user and password" in wrong.stderr
    config = tmp_path / "docker" / "config.json"
    assert not config.exists()

    config.parent.mkdir()
    config.write_text('{"proxies": {"default": {}}, "auths": {"other.example": {"auth": "YTpi"}}}')
    config.chmod(0o644)
    done = succeeded(run_cogkit("login", "--registry", host, "-u", USER, "--password-stdin", input=f"{PASSWORD}\n"))
    assert f"Login succeeded for {host}" in done.stderr
    assert PASSWORD not in done.stderr + done.stdout
    kept = json.loads(config.read_text())
    assert kept["proxies"] == {"default": {}}
    assert kept["auths"]["other.example"] == {"auth": "YTpi"}
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]

    project = context_tree({"Dockerfile": "FROM scratch\nCOPY file /\n", "file": "x"})
    succeeded(run_cogkit("push", f"{host}/app", cwd=project))
    assert basic_registry.tags("app") == ["latest"]


def test_login_at_a_token_registry_goes_by_its_token_service(run_cogkit: RunCogkit, tmp_path: Path) -> None:
    tokens = TokenServer(tmp_path / "tokens", {USER: PASSWORD})
    registry = Registry(tmp_path / "registry", auth=tokens.registry_config("registry of the tests"))
    try:
        login = ("login", registry.host, "-u", USER, "--password-stdin")
        refused = run_cogkit(*login, input="mistyped")
        assert refused.returncode == 1
        assert "mistyped" not in refused.stderr
        succeeded(run_cogkit(*login, input=PASSWORD))
    finally:
        registry.stop()
        tokens.stop()


def test_login_leaves_a_config_that_it_does_not_understand_alone(
    run_cogkit: RunCogkit, basic_registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "docker").mkdir()
    config = tmp_path / "docker" / "config.json"
    config.write_text("{ broken")
    done = run_cogkit("login", basic_registry.host, "-u", USER, "--password-stdin", input=PASSWORD)
    assert done.returncode == 2
    assert str(config) in done.stderr
    assert config.read_text() == "{ broken"


def test_login_asks_nothing_where_nobody_can_answer(run_cogkit: RunCogkit) -> None:
    for arguments in ((), ("registry.example.com",)):
        done = run_cogkit("login", *arguments, input="")
        assert done.returncode == 2
        assert "standard input is not a terminal" in done.stderr


@pytest.mark.parametrize(
    ("lines", "reason"), [([b""], "username cannot be empty"), ([b"me", b""], "password cannot be empty")]
)
def test_login_at_a_terminal_takes_an_empty_line_for_an_answer_and_refuses_it_as_cog_does(
    start_cogkit: StartCogkit, lines: list[bytes], reason: str
) -> None:
    keyboard, terminal = pty.openpty()
    login = start_cogkit("login", "registry.example.com", stdin=terminal)
    os.close(terminal)
    assert login.stderr is not None
    shown = b""
    for prompt, line in zip((b"Username:", b"Password: "), lines, strict=False):
        # What is typed before a password is asked for is thrown away.
        while prompt not in shown:
            shown += login.stderr.read1()  # type: ignore[attr-defined]
        os.write(keyboard, line + b"\n")
    errors = shown.decode() + login.communicate(timeout=60)[1].decode()
    os.close(keyboard)
    assert login.returncode == 2
    assert "Logging in to registry.example.com" in errors
    assert reason in errors


def test_login_help_says_which_registries_take_what(run_cogkit: RunCogkit) -> None:
    shown = succeeded(run_cogkit("login", "--help")).stdout
    # Cog's own tests look for these words.
    for words in ("container registry", "Replicate", "other registries", "username and password", "--token-stdin"):
        assert words in shown


# ---- doctor


def test_doctor_finds_nothing_at_a_good_project_and_makes_nothing_there(
    context_tree: MakeTree, run_cogkit: RunCogkit
) -> None:
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY, "sub/file": ""})
    done = succeeded(run_cogkit("doctor", cwd=project / "sub"))
    assert "experimental" in done.stderr
    assert "no issues found" in done.stderr
    assert not (project / ".cog").exists()


def test_doctor_says_that_there_is_no_builder(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    project = context_tree({"cog.yaml": COG_YAML, "run.py": RUN_PY})
    done = run_cogkit("doctor", "--addr", "unix:///no/such.sock", cwd=project)
    assert done.returncode == 1
    assert "no builder: " in done.stderr
    assert "Found 1 error." in done.stderr
    skipped = run_cogkit("doctor", "--addr", "unix:///no/such.sock", cwd=project, env={"COG_SKIP_DOCKER_CHECK": "1"})
    assert skipped.returncode == 0
