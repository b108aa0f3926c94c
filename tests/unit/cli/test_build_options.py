"""Every command that builds takes every flag of a build, and obeys it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cogkit.building import build as builder
from cogkit.building.build import BuildResult
from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions, CogOptions
from cogkit.buildkit.connect.address import TlsConfig
from cogkit.cli.build_options import BuilderFlags, BuildFlags, Flags, ShownFlags, takes
from cogkit.cli.main import main

DIGEST = "sha256:" + "d" * 64
CHANGES: dict[str, tuple[list[str], str]] = {
    "context": (["--context", "."], "context"),
    "file": (["-f", "cog.yaml"], "file"),
    "target": (["--target", "x"], "target"),
    "build_arg": (["--build-arg", "A=b"], "build_args"),
    "build_context": (["--build-context", "x=docker-image://y"], "build_contexts"),
    "frontend": (["--frontend", "gateway.v0"], "frontend"),
    "opt": (["--opt", "a=b"], "frontend_opts"),
    "local": (["--local", "a=."], "frontend_mounts"),
    "call": (["--call", "outline"], "call"),
    "check": (["--check"], "call"),
    "secret": (["--secret", "id=x,env=HOME"], "secrets"),
    "ssh": (["--ssh", "x=cog.yaml"], "ssh"),
    "allow": (["--allow", "network.host"], "allow"),
    "network": (["--network", "none"], "network"),
    "add_host": (["--add-host", "a:127.0.0.1"], "hosts"),
    "ulimit": (["--ulimit", "nofile=1"], "ulimits"),
    "shm_size": (["--shm-size", "1g"], "shm_size"),
    "cgroup_parent": (["--cgroup-parent", "x"], "cgroup_parent"),
    "no_cache": (["--no-cache"], "no_cache"),
    "no_cache_filter": (["--no-cache-filter", "x"], "no_cache_filter"),
    "pull": (["--pull"], "pull"),
    "cache_from": (["--cache-from", "a/b"], "cache_from"),
    "cache_to": (["--cache-to", "type=inline"], "cache_to"),
    "uv_image": (["--uv-image", "a/b"], "uv_image"),
    "separate_weights": (["--separate-weights"], "cog.separate_weights"),
    "weights_path": (["--weights-path", "*.bin"], "cog.weights_paths"),
    "use_cog_base_image": (["--use-cog-base-image"], "cog.use_cog_base_image"),
    "use_cuda_base_image": (["--use-cuda-base-image", "false"], "cog.use_cuda_base_image"),
    "openapi_schema": (["--openapi-schema", "x.json"], "cog.openapi_schema"),
    "skip_schema_validation": (["--skip-schema-validation"], "cog.skip_schema_validation"),
    "schema": (["--schema", "static"], "cog.evaluate_schema"),
    "strip": (["--strip"], "cog.strip"),
    "precompile": (["--precompile"], "cog.precompile"),
    "dockerfile": (["--dockerfile", "Dockerfile"], "cog.dockerfile"),
    "tag": (["-t", "further"], "tags"),
    "label": (["--label", "a=b"], "labels"),
    "platform": (["--platform", "linux/riscv64"], "platforms"),
    "timestamp": (["--timestamp", "5"], "timestamp"),
    "sbom": (["--sbom", "true"], "attestations"),
    "provenance": (["--provenance", "mode=max"], "attestations"),
    "attest": (["--attest", "type=sbom"], "attestations"),
    "output": (["-o", "type=oci,dest=x.tar"], "outputs"),
    "annotation": (["--annotation", "index:a=b"], "annotations"),
    "resource": (["--resource", "memory=1g"], "resources"),
    "proxy_network": (["--proxy-network"], "proxy_network"),
    "policy": (["--policy", "disabled=true"], "policies_disabled"),
    "source_policy_file": (["--source-policy-file", "policy.json"], "source_policy"),
    "memory": (["-m", "1g"], "resources"),
    "memory_swap": (["--memory-swap", "-1"], "resources"),
    "cpu_shares": (["-c", "5"], "resources"),
    "cpu_period": (["--cpu-period", "5"], "resources"),
    "cpu_quota": (["--cpu-quota", "5"], "resources"),
    "cpuset_cpus": (["--cpuset-cpus", "0-1"], "resources"),
    "cpuset_mems": (["--cpuset-mems", "0"], "resources"),
    "push": (["--push"], "push"),
    "load": (["--load"], "load"),
    "load_into": (["--load-into", "docker"], "load"),
    "metadata_file": (["--metadata-file", "m.json"], "metadata_file"),
    "iidfile": (["--iidfile", "i"], "iidfile"),
    "ref_file": (["--ref-file", "r"], "ref_file"),
    "addr": (["--addr", "tcp://127.0.0.1:1"], "address"),
    "builder": (["--builder", "team"], "builder"),
    "tlscacert": (["--tlscacert", "ca"], "tls"),
    "tlscert": (["--tlscert", "cert"], "tls"),
    "tlskey": (["--tlskey", "key"], "tls"),
    "tlsdir": (["--tlsdir", "tls"], "tls"),
    "tlsservername": (["--tlsservername", "x"], "tls"),
    "compress": (["--transfer-compression", "on"], "compress"),
    "lock_timeout": (["--lock-timeout", "3"], "lock_timeout"),
}
"""For each flag a use of it, and the option that it changes."""
IGNORED = {
    "docker_compress": ["--compress"],
    "rm": ["--rm=false"],
    "force_rm": ["--force-rm"],
    "squash": ["--squash"],
    "isolation": ["--isolation", "default"],
    "security_opt": ["--security-opt", "x"],
}
"""Old flags of docker that do nothing but give a note."""
ELSEWHERE = {"pull_weights", "registry", "progress", "quiet", "no_color", "debug", *IGNORED}
"""Flags that change no option, but the environment or what is shown."""
COMMANDS: dict[str, tuple[list[str], set[str]]] = {
    "build": (["build"], set()),
    "push": (["push", "example.com/a/b"], {"push", "call", "check"}),
}
"""Each command that builds: how it is called, and the flags that mean nothing to it."""


class Both(BuilderFlags, ShownFlags):
    """A bundle of bundles."""


Run = Callable[[list[str]], BuildOptions]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Calls a command in a Cog project and returns the options of its build, which is not run."""
    (tmp_path / "tls").mkdir()
    for name in ("ca.pem", "tls.crt", "key.pem"):
        (tmp_path / "tls" / name).touch()
    (tmp_path / "policy.json").write_text('{"rules": []}')
    (tmp_path / "cog.yaml").write_text('build:\n  python_version: "3.12"\n')
    monkeypatch.chdir(tmp_path)
    for name in (
        "BUILDKIT_PROGRESS",
        "BUILDKIT_HOST",
        "SOURCE_DATE_EPOCH",
        "COG_OPENAPI_SCHEMA",
        "COG_MODEL",
        "DOCKER_DEFAULT_PLATFORM",
    ):
        monkeypatch.delenv(name, raising=False)
    seen: list[BuildOptions] = []

    async def build(options: BuildOptions, observer: BuildObserver) -> BuildResult:
        seen.append(options)
        return BuildResult("ref", ("a:1",), DIGEST, DIGEST, {}, answer={"result.json": "{}", "result.txt": ""})

    monkeypatch.setattr(builder, "build", build)

    def call(arguments: list[str]) -> BuildOptions:
        code = main([*arguments, "--progress", "quiet"])
        assert len(seen) == 1, f"the command ended with {code} before it built"
        return seen.pop()

    return call


def option(options: BuildOptions, name: str) -> object:
    found: object = options
    for part in name.split("."):
        found = getattr(found, part)
    return found


def test_each_flag_has_its_place_in_this_file() -> None:
    assert set(BuildFlags.hints()) == set(CHANGES) | ELSEWHERE


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", CHANGES)
def test_a_command_that_builds_takes_and_obeys_the_flag(command: str, flag: str, run: Run) -> None:
    arguments, without = COMMANDS[command]
    if flag in without:
        assert main([*arguments, *CHANGES[flag][0]]) == 2
        return
    given, name = CHANGES[flag]
    assert option(run([*arguments, *given]), name) != option(run(arguments), name)


@pytest.mark.parametrize("arguments", IGNORED.values(), ids=" ".join)
def test_an_old_flag_of_docker_is_taken_with_a_note(
    arguments: list[str], run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["build", *arguments])
    assert f"warning: {arguments[0]} does nothing" in capsys.readouterr().err


def test_nothing_is_noted_of_what_was_not_given(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run(["build", "--rm"])
    assert "does nothing" not in capsys.readouterr().err


def test_the_platform_of_the_environment_stands_in(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_DEFAULT_PLATFORM", "linux/arm64")
    assert run(["build"]).platforms == ("linux/arm64",)
    assert run(["build", "--platform", "linux/amd64"]).platforms == ("linux/amd64",)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_that_builds_obeys_the_source_policy(
    command: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = tmp_path / "policy.json"
    policy.write_text('{"rules": [{"action": "DENY", "selector": {"identifier": "docker-image://*"}}]}')
    monkeypatch.setenv("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", str(policy))
    assert b"docker-image://*" in (run(COMMANDS[command][0]).source_policy or b"")


def test_every_option_can_be_changed_by_a_flag() -> None:
    changed = {name.split(".")[0] for _, name in CHANGES.values()}
    # `--allow` decides on both; the policy comes from the environment, the rest from the project.
    assert set(BuildOptions.__slots__) == changed | {"allow_local_delete", "vcs", "cog"}
    cog = {name.split(".")[1] for _, name in CHANGES.values() if name.startswith("cog.")}
    assert set(CogOptions.__slots__) == cog | {"annotations"}


def test_a_folder_stands_for_the_three_tls_files(run: Run) -> None:
    folder = Path("tls")
    expected = TlsConfig(folder / "ca.pem", folder / "tls.crt", folder / "key.pem", "x")
    assert run(["build", "--tlsdir", "tls", "--tlsservername", "x"]).tls == expected


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tlsdir", "."], "--tlsdir . has neither ca.pem nor ca.crt"),
        (["--tlsdir", "tls", "--tlskey", "k"], "--tlsdir is given beside --tlscacert, --tlscert or --tlskey"),
    ],
    ids=["without files", "beside a file"],
)
def test_a_folder_of_tls_files_is_refused(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    monkeypatch.chdir(tmp_path)
    assert main(["build", *arguments]) == 2
    assert f"error: {said}\n" in capsys.readouterr().err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["addr", "builder", "tlscacert", "tlscert", "tlskey", "tlsdir", "tlsservername"])
def test_what_names_the_builder_counts_before_the_command_too(command: str, flag: str, run: Run) -> None:
    arguments, _ = COMMANDS[command]
    given, name = CHANGES[flag]
    assert option(run([*given, *arguments]), name) == option(run([*arguments, *given]), name)


def test_the_commands_own_flag_comes_before_the_one_before_it(run: Run) -> None:
    assert run(["--addr", "unix:///a", "build", "--addr", "unix:///b"]).address == "unix:///b"
    assert run(["--addr", "unix:///a", "build"]).address == "unix:///a"


def test_a_subcommand_goes_where_the_flag_before_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--addr", "unix:///no/such.sock", "history", "ls"]) == 3
    assert "/no/such.sock" in capsys.readouterr().err


def test_a_bundle_refuses_a_flag_that_it_does_not_have() -> None:
    with pytest.raises(TypeError, match="BuilderFlags has no tga"):
        BuilderFlags(tga=["x"])


def test_a_command_gets_its_own_parameters_beside_the_bundle() -> None:
    @takes(Both, without=["compress"])
    def command(flags: Both, name: str = "x", *, count: int = 1) -> tuple[Flags, str, int]:
        return flags, name, count

    flags, name, count = command(addr="unix:///x", name="y", count=2)
    assert isinstance(flags, Both)
    assert (flags.addr, flags.no_color, name, count) == ("unix:///x", False, "y", 2)
    with pytest.raises(TypeError):
        command(compress="on")
