"""Secrets and SSH agents in the steps of a real build."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.e2e.test_build import COG_YAML, RUN_PY, logged, succeeded
from tests.real.buildkitd import Buildkitd
from tests.real.tools import installed

READS_SECRET = """\
FROM busybox
RUN --mount=type=secret,id=token sha256sum < /run/secrets/token && wc -c < /run/secrets/token
"""
VALUE = "hunter2 is not the passw\u00f6rd\n"

ASKS_AGENT = """\
FROM python:3.11-slim
COPY ask.py /
RUN --mount=type=ssh{id} python3 /ask.py
"""
ASK = """\
import os, socket, struct
agent = socket.socket(socket.AF_UNIX)
agent.connect(os.environ["SSH_AUTH_SOCK"])
file = agent.makefile("rb")
def string(value):
    return struct.pack(">I", len(value)) + value
def ask(message):
    agent.sendall(string(message))
    return file.read(struct.unpack(">I", file.read(4))[0])
listed = ask(bytes([11]))
count, size = struct.unpack_from(">II", listed, 1)
print("keys", count)
blob = listed[9:9 + size]
print("key", blob.hex())
print("removal", ask(bytes([19])).hex())
print("after", struct.unpack_from(">I", ask(bytes([11])), 1)[0])
signed = ask(bytes([13]) + string(blob) + string(b"data") + struct.pack(">I", 4))
print("signature", signed[0], signed[5:].hex())
"""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Path]:
    """The socket of a real ssh-agent with one key, ``tmp_path/key``."""
    key, socket = tmp_path / "key", tmp_path / "agent"
    subprocess.run(
        [installed("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True, timeout=30
    )
    process = subprocess.Popen([installed("ssh-agent"), "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not socket.exists():
            assert time.monotonic() < deadline and process.poll() is None, "ssh-agent does not start"
            time.sleep(0.01)
        subprocess.run(
            [installed("ssh-add"), "-q", key],
            env={**os.environ, "SSH_AUTH_SOCK": str(socket)},
            check=True,
            timeout=30,
        )
        yield socket
    finally:
        process.kill()
        process.wait()


def said(text: str, word: str) -> str:
    match = re.search(rf"^{word} (.*)$", text, re.MULTILINE)
    assert match, text
    return match[1].strip()


def test_secret_of_a_file_reaches_the_step_and_nothing_else(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path, buildkitd: Buildkitd
) -> None:
    (tmp_path / "token").write_text(VALUE)
    project = context_tree({"Dockerfile": READS_SECRET})
    since = buildkitd.log_size()
    done = succeeded(
        run_cogkit(
            *("build", project, "--no-cache", "--progress=rawjson", "--debug"),
            *("--secret", f"id=token,src={tmp_path / 'token'}"),
        )
    )
    assert logged(done).split()[-1] == str(len(VALUE.encode()))
    assert "hunter2" not in done.stdout + done.stderr + buildkitd.log_since(since)


@pytest.mark.parametrize("secret", ["id=token,env=TOKEN", "id=token,type=env,src=TOKEN", "id=token"])
def test_secret_of_the_environment_reaches_the_step(
    context_tree: MakeTree, run_cogkit: RunCogkit, secret: str, tmp_path: Path
) -> None:
    project = context_tree({"Dockerfile": READS_SECRET})
    environment = {"TOKEN" if "TOKEN" in secret else "token": VALUE}
    done = succeeded(
        run_cogkit("build", project, "--no-cache", "--progress=rawjson", "--secret", secret, env=environment)
    )
    assert logged(done).split()[-1] == str(len(VALUE.encode()))


def test_secret_that_is_not_there_stops_the_build_before_a_builder_is_asked(
    context_tree: MakeTree, run_cogkit: RunCogkit
) -> None:
    project = context_tree({"Dockerfile": READS_SECRET})
    for secret, message in (
        ("id=token,src=gone", "secret token: cannot read gone"),
        ("id=t,env=GONE", "GONE is not set"),
    ):
        done = run_cogkit("build", project, "--secret", secret, env={"BUILDKIT_HOST": "unix:///nowhere"})
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr


def test_secret_that_the_build_requires_and_nobody_gave_is_a_clear_failure(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    (tmp_path / "other").write_text("x")
    required = READS_SECRET.replace("id=token", "id=token,required=true")
    project = context_tree({"Dockerfile": required})
    for arguments in ((), ("--secret", f"id=other,src={tmp_path / 'other'}")):
        done = run_cogkit("build", project, "--no-cache", *arguments)
        assert done.returncode == 1
        assert "secret token: not found" in done.stderr


def test_steps_of_a_cog_project_get_secrets(context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(VALUE)
    yaml = COG_YAML + (
        "  run:\n    - command: wc -c < /run/secrets/token\n"
        "      mounts:\n        - type: secret\n          id: token\n          target: /run/secrets/token\n"
    )
    project = context_tree({"cog.yaml": yaml, "run.py": RUN_PY})
    done = succeeded(
        run_cogkit(
            *("build", project, "--no-cache", "--progress=rawjson", "--secret", f"id=token,src={tmp_path / 'token'}"),
            timeout=600,
        )
    )
    assert str(len(VALUE.encode())) in logged(done).split()


def test_step_can_list_and_sign_with_the_users_agent_and_not_empty_it(
    context_tree: MakeTree, run_cogkit: RunCogkit, agent: Path, tmp_path: Path
) -> None:
    project = context_tree({"Dockerfile": ASKS_AGENT.format(id=""), "ask.py": ASK})
    done = succeeded(
        run_cogkit(
            *("build", project, "--no-cache", "--progress=rawjson", "--ssh", "default"),
            env={"SSH_AUTH_SOCK": str(agent)},
        )
    )
    answers = logged(done)
    assert said(answers, "keys") == said(answers, "after") == "1"
    assert said(answers, "removal") == "05"
    assert bytes.fromhex(said(answers, "key")) == b64decode((tmp_path / "key.pub").read_text().split()[1])
    assert said(answers, "signature").startswith("14 ")


def test_key_from_a_file_signs_under_its_own_id(context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    command = [installed("ssh-keygen"), "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")]
    subprocess.run(command, check=True, timeout=30)
    project = context_tree({"Dockerfile": ASKS_AGENT.format(id=",id=deploy"), "ask.py": ASK})
    done = succeeded(
        run_cogkit("build", project, "--no-cache", "--progress=rawjson", "--ssh", f"deploy={tmp_path / 'key'}")
    )
    answers = logged(done)
    blob = bytes.fromhex(said(answers, "key"))
    _, _, signature = said(answers, "signature").partition(" ")
    Ed25519PublicKey.from_public_bytes(blob[-32:]).verify(bytes.fromhex(signature)[-64:], b"data")


def test_agent_that_the_build_requires_and_nobody_offered_is_a_clear_failure(
    context_tree: MakeTree, run_cogkit: RunCogkit, agent: Path
) -> None:
    project = context_tree({"Dockerfile": ASKS_AGENT.format(id=",required=true"), "ask.py": ASK})
    environment = {"SSH_AUTH_SOCK": str(agent)}
    done = run_cogkit("build", project, "--no-cache", env=environment)
    assert (done.returncode, "forwarded from the client" in done.stderr) == (1, True), done.stderr
    done = run_cogkit("build", project, "--no-cache", "--ssh", "other", env=environment)
    assert (done.returncode, "unset ssh forward key default" in done.stderr) == (1, True), done.stderr


def test_missing_agent_stops_the_build_before_a_builder_is_asked(context_tree: MakeTree, run_cogkit: RunCogkit) -> None:
    project = context_tree({"Dockerfile": ASKS_AGENT.format(id=""), "ask.py": ASK})
    done = run_cogkit(
        "build", project, "--ssh", "default", env={"SSH_AUTH_SOCK": None, "BUILDKIT_HOST": "unix:///nowhere"}
    )
    assert (done.returncode, "there is no SSH agent (SSH_AUTH_SOCK is not set)" in done.stderr) == (2, True)


def test_entitlement_that_was_not_allowed_is_refused_by_the_daemon(
    context_tree: MakeTree, run_cogkit: RunCogkit
) -> None:
    project = context_tree({"Dockerfile": "FROM busybox\nRUN --network=host true\n"})
    done = run_cogkit("build", project, "--no-cache")
    assert (done.returncode, "network.host" in done.stderr) == (1, True), done.stderr


def test_metadata_of_a_build_with_secrets_does_not_hold_them(
    context_tree: MakeTree, run_cogkit: RunCogkit, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(VALUE)
    project = context_tree({"Dockerfile": READS_SECRET})
    metadata = tmp_path / "meta.json"
    build = ("build", project, "--metadata-file", metadata, "--secret", f"id=token,src={tmp_path / 'token'}")
    succeeded(run_cogkit(*build))
    assert "hunter2" not in json.dumps(json.loads(metadata.read_text()))
