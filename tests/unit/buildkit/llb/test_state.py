"""States: values that do not change, and what commands find around them.

Which bytes they become is compared with Go's library in ``tests/conformance/test_llb_oracle.py``.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest

from cogkit._proto import ops_pb2
from cogkit.buildkit import llb
from cogkit.errors import UsageError

ANY: Any = str
"""Hides from type checkers that a text is not among those allowed."""


def ops(state: llb.State, **constraints: Any) -> list[ops_pb2.Op]:
    definition = state.marshal(local_unique_id="unique", **constraints)
    return [ops_pb2.Op.FromString(op) for op in definition.ops]


def test_a_state_is_not_changed_by_what_is_made_of_it() -> None:
    base = llb.image("busybox").add_env("A", "1").dir("/a")
    before = base.marshal()
    changed = base.add_env("A", "2").dir("b").user("me").file(llb.mkdir("/x"))
    base.run("true", env={"B": "3"}, dir="/elsewhere")
    assert base.marshal() == before
    assert (base.env, base.working_dir) == ({"A": "1"}, "/a")
    assert (changed.env, changed.working_dir) == ({"A": "2"}, "/a/b")


def test_what_is_set_for_one_command_does_not_last() -> None:
    first = llb.image("busybox").run(["one"], env={"A": "1"}, dir="/x", user="me")
    execs = [op.exec.meta for op in ops(first.run(["two"])) if op.HasField("exec")]
    assert [(list(each.args), list(each.env), each.cwd, each.user) for each in execs] == [
        (["one"], ["A=1"], "/x", "me"),
        (["two"], [], "/", ""),
    ]


def test_a_chain_of_actions_is_not_changed_by_what_follows_it() -> None:
    chain = llb.mkdir("/a")
    chain.mkfile("/a/b", "x")
    (op,) = [op for op in ops(llb.scratch().file(chain)) if op.HasField("file")]
    assert len(op.file.actions) == 1


def test_a_vertex_that_two_ways_lead_to_is_there_once() -> None:
    base = llb.image("busybox")
    merged = llb.merge([base.run(["a"]), base.run(["b"]), base])
    assert len(merged.marshal().ops) == 5


def test_scratch_has_an_empty_definition() -> None:
    assert llb.scratch().marshal().to_bytes() == b""
    assert llb.scratch().marshal().head is None


def test_two_marshallings_of_local_folders_differ_in_their_random_id_only() -> None:
    state = llb.local("context")
    assert state.marshal() != state.marshal()
    assert state.marshal(local_unique_id="x") == state.marshal(local_unique_id="x")


def test_the_results_of_mounts() -> None:
    output = llb.image("busybox").run(
        ["make"], mounts=[llb.BindMount("/out"), llb.BindMount("/in", llb.image("alpine").dir("/kept"), readonly=True)]
    )
    assert ops(output.get_mount("/out"))[-1].inputs[0].index == 1
    assert output.get_mount("/in").working_dir == "/"
    assert output.get_mount("/in", keep_source=True).working_dir == "/kept"
    assert output.get_mount("/in").marshal() == llb.image("alpine").marshal()
    with pytest.raises(UsageError, match="nothing is mounted at /none"):
        output.get_mount("/none")


def test_image_configs_give_environment_folder_and_platform() -> None:
    config = {"architecture": "arm64", "os": "linux", "config": {"Env": ["A=1", "B"], "WorkingDir": "/w"}}
    state = llb.image("busybox").with_image_config(config)
    assert (state.env, state.working_dir) == ({"A": "1", "B": ""}, "/w")
    exec_op = ops(state.run(["x"]), platform="linux/amd64")[1]
    assert exec_op.platform.Architecture == "arm64"
    for wrong in ("{", "[]", '{"config": 1}', '{"config": {"Env": "A=1"}}'):
        with pytest.raises(UsageError, match="the image's config"):
            llb.scratch().with_image_config(wrong)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: llb.image("a/B"), "'a/B' is not the name of an image: "),
        (lambda: llb.image("a", platform="a b"), "'a b' is not a platform"),
        (lambda: llb.image("a", resolve_mode=ANY("push")), "'push' is not a resolve mode"),
        (lambda: llb.image_blob("a:tag"), "'a:tag' does not name a blob"),
        (lambda: llb.local("x", include="*.py"), "include takes a list"),
        (lambda: llb.local("x", differ=ANY("size")), "'size' is not a way to compare files"),
        (lambda: llb.git("ftp://host/x"), "git does not speak ftp"),
        (lambda: llb.git("https://host/x#main"), "says more than where the repository is"),
        (lambda: llb.git("https://host/%zz"), "is not the address of a git repository"),
        (lambda: llb.http("file:///x"), "is not an address that begins with http"),
        (lambda: llb.scratch().run("a 'b"), "a quote (') of the command \"a 'b\" is not closed"),
        (lambda: llb.scratch().run("a \\"), "ends after a backslash"),
        (lambda: llb.scratch().run([]), "there is no command to run"),
        (lambda: llb.scratch().run(["x"], network=ANY("wide")), "'wide' is not a network mode"),
        (lambda: llb.scratch().run(["x"], valid_exit_codes=[1 << 31]), "exit codes are numbers of 32 bits"),
        (lambda: llb.scratch().run(["x"], require="a"), "require takes a list of filters"),
        (lambda: llb.scratch().add_env("A=B", "x"), "'A=B' cannot be the name of an environment variable"),
        (lambda: llb.scratch().add_extra_host("x", "y"), "'y' is not an IP address"),
        (lambda: llb.scratch().add_ulimit("nofile", 1 << 63), "the limit nofile is out of range"),
        (lambda: llb.scratch().requires("x", llb.image("a")), "an empty filesystem cannot require anything"),
        (lambda: llb.image("a").requires("", llb.image("a")), "needs a name for the condition"),
        (lambda: llb.scratch().file(llb.FileAction()), "a chain of file actions is empty"),
        (lambda: llb.FileAction().with_state(llb.scratch()), "a chain of file actions is empty"),
        (lambda: llb.mkdir("/a", created=datetime(2020, 1, 1)), "a file's time needs a time zone"),
        (lambda: llb.mkdir("/a", created=1 << 63), "a file's time cannot be"),
        (lambda: llb.copy(llb.scratch(), "a", "b", mode=1 << 31), "the mode 20000000000 is out of range"),
        (lambda: llb.copy(llb.scratch(), "a", "b", include="x"), "include takes a list of patterns"),
        (lambda: llb.CacheMount(""), "a cache mount needs a target"),
        (lambda: llb.CacheMount("/c", sharing=ANY("some")), "'some' is not a way to share a cache"),
        (lambda: llb.TmpfsMount("/t", -1), "the size of the tmpfs at /t cannot be -1"),
        (lambda: llb.SecretMount("s", uid=-1), "the uid -1 is out of range"),
        (lambda: llb.LinuxResources(cpu_shares=-1), "cpu_shares cannot be -1"),
        (lambda: llb.SourceMap("x", b"", state=llb.scratch(), definition=llb.Definition()), "a state or a definition"),
        (lambda: llb.image("a", name="\udc80").marshal().to_bytes(), "is not text"),
        (lambda: llb.image("a").run(["\udc80"]).marshal(), "is not text"),
        (lambda: llb.scratch().run(["x"], mounts=[llb.TmpfsMount("/t")]).get_mount("/t").marshal(), "the tmpfs at /t"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(make: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        make()
    assert message in caught.value.message


def test_an_unknown_keyword_is_a_type_error() -> None:
    wrong: Any = {"ignore_chache": True}
    with pytest.raises(TypeError, match="unexpected keyword argument 'ignore_chache'"):
        llb.image("a", **wrong)


def test_times_of_files_are_exact() -> None:
    moment = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)
    (op,) = [op for op in ops(llb.scratch().file(llb.mkdir("/a", created=moment))) if op.HasField("file")]
    assert op.file.actions[0].mkdir.timestamp == 1709208000_123456_000


def test_defaults_of_secrets_agents_and_caches() -> None:
    mounts: list[llb.Mount] = [llb.SecretMount("key"), llb.SecretEnv("TOKEN"), llb.SSHMount(), llb.CacheMount("/c")]
    exec_op = ops(llb.image("busybox").run(["x"], mounts=mounts))[1].exec
    assert [each.dest for each in exec_op.mounts] == ["/", "/c", "/run/secrets/key", "/run/buildkit/ssh_agent.0"]
    assert exec_op.mounts[1].cacheOpt.ID == "/c"
    assert list(exec_op.meta.env) == ["SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0"]
    assert [(each.ID, each.name) for each in exec_op.secretenv] == [("TOKEN", "TOKEN")]


def test_deep_graphs_need_no_deep_stack() -> None:
    state: llb.State = llb.image("busybox")
    for number in range(5000):
        state = state.run(["x", str(number)])
    definition = state.marshal()
    assert len(definition.ops) == 5002
    assert llb.Definition.from_bytes(definition.to_bytes()) == definition
    del state


def test_the_client_does_not_import_llb_nor_llb_grpc() -> None:
    script = """
import sys
import cogkit.buildkit
assert "cogkit.buildkit.llb" not in sys.modules
from cogkit.buildkit import llb
assert "grpc" not in sys.modules and "google.protobuf" not in sys.modules
llb.image("busybox").run("true").marshal()
assert "google.protobuf" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script], timeout=120, check=True)
