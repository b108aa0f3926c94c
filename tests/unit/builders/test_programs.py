"""What a private builder is made of: how it is run, and what is said of what is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cogkit.builders import private, programs, supervisor
from cogkit.builders.programs import Programs, find_programs, installed_buildkitd
from cogkit.builders.records import PrivateSettings
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.errors import ConfigError


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with nothing but what `install` puts there."""
    for name in ("CONFIG", "DATA", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(programs, "_SYSTEM_PATH", ())
    monkeypatch.setattr(programs, "_can_run_buildkitd", lambda: True)
    monkeypatch.setattr(programs, "_NAMESPACE_LIMITS", (tmp_path / "max_user_namespaces",))
    monkeypatch.setattr(programs, "_SUBORDINATE_IDS", (tmp_path / "subuid",))
    (tmp_path / "bin").mkdir()
    return tmp_path


def install(machine: Path, *names: str) -> None:
    for name in names:
        path = machine / "bin" / name
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)


def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def missing() -> BuilderUnreachableError:
    with pytest.raises(BuilderUnreachableError) as caught:
        find_programs()
    assert caught.value.hint
    return caught.value


def test_what_is_missing_is_said_one_after_the_other(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no buildkitd on this machine" in missing().message
    install(machine, "buildkitd")
    assert "needs runc" in missing().message
    install(machine, "runc")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert find_programs() == Programs(machine / "bin" / "buildkitd", machine / "bin" / "runc")


def test_without_root_more_is_missing(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch)
    monkeypatch.setattr(programs, "_user", lambda: "somebody")
    install(machine, "buildkitd", "runc")
    assert "needs rootlesskit" in missing().message
    install(machine, "rootlesskit")
    assert "needs newuidmap" in missing().message
    install(machine, "newuidmap", "newgidmap")
    (machine / "max_user_namespaces").write_text("0\n")
    refused = missing()
    assert "this system does not allow them" in refused.message
    assert refused.where == str(machine / "max_user_namespaces")
    (machine / "max_user_namespaces").write_text("1000\n")
    assert "needs subordinate ids" in missing().message
    (machine / "subuid").write_text("somebody:100000:65536\n")
    assert find_programs().rootlesskit == machine / "bin" / "rootlesskit"


def test_another_system_than_linux_has_no_private_builder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "_can_run_buildkitd", lambda: False)
    assert "on Linux only" in missing().message


def test_the_buildkitd_that_was_installed_goes_before_the_one_in_path(machine: Path) -> None:
    install(machine, "buildkitd")
    own = installed_buildkitd()
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")
    assert programs.find_buildkitd() == machine / "bin" / "buildkitd"
    own.chmod(0o755)
    assert programs.find_buildkitd() == own


def test_without_root_it_runs_in_rootlesskit_with_a_runtime_folder_of_its_own(
    machine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUILDKIT_HOST", "tcp://a:1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/notify")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    place, sockets = machine / "place", machine / "sockets"
    rootless = Programs(Path("/bin/buildkitd"), Path("/bin/runc"), Path("/bin/rootlesskit"))
    command = private._command(place, sockets, rootless)
    assert command[:2] == ["/bin/rootlesskit", "/bin/buildkitd"]
    assert command[command.index("--oci-worker-binary") + 1] == "/bin/runc"
    environment = private._environment(place, sockets, rootless)
    assert environment["XDG_RUNTIME_DIR"] == str(sockets)
    assert not {"BUILDKIT_HOST", "NOTIFY_SOCKET"} & environment.keys()
    assert environment["TMPDIR"].startswith(str(place / supervisor.ROOT))
    rootful = Programs(Path("/bin/buildkitd"), Path("/bin/runc"))
    assert private._command(place, sockets, rootful)[0] == "/bin/buildkitd"
    assert private._environment(place, sockets, rootful)["XDG_RUNTIME_DIR"] == "/run/user/1000"


def test_the_users_configuration_gets_the_rules_of_garbage_collection_unless_it_has_a_worker(machine: Path) -> None:
    settings = PrivateSettings(max_used_space="7GB")
    assert 'maxUsedSpace = "7GB"' in private._config(settings, machine)
    path = machine / "config" / "cogkit" / private.CONFIG_NAME
    path.parent.mkdir(parents=True)
    path.write_text('[registry."docker.io"]\nmirrors = ["mirror.example.com"]\n')
    both = private._config(settings, machine)
    assert "mirror.example.com" in both and 'maxUsedSpace = "7GB"' in both
    path.write_text("[worker.oci]\ngc = false\n")
    assert private._config(settings, machine) == "[worker.oci]\ngc = false\n"
    path.write_text("[worker\n")
    with pytest.raises(ConfigError, match="not TOML") as caught:
        private._config(settings, machine)
    assert caught.value.where is not None and caught.value.where.startswith(f"{path}:1")
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="cannot be read"):
        private._config(settings, machine)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"error": "x", "log": "write /a: no space left on device"}, "no space is left on the disk"),
        ({"error": "[Errno 28] No space left on device"}, "no space is left on the disk"),
        ({"error": "ended", "log": "newuidmap: write failed"}, "does not let users make user namespaces"),
        ({"error": "buildkitd ended with code 1", "log": "bad flag"}, "buildkitd ended with code 1"),
    ],
)
def test_why_it_did_not_start(said: dict[str, str], words: str) -> None:
    rootless = Programs(Path("/bin/buildkitd"), Path("/bin/runc"), Path("/bin/rootlesskit"))
    error = private._start_error(said, rootless)
    assert words in error.message
    assert error.hint
