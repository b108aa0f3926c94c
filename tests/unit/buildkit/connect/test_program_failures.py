"""What programs say when they cannot get to a daemon, as one sentence with the next step."""

from __future__ import annotations

import pytest

from cogkit.buildkit.connect.address import Address
from cogkit.buildkit.connect.program_dialer import dial_command
from cogkit.buildkit.connect.program_failures import program_failure, program_missing

SSH, DOCKER, PODMAN = "ssh://me@far:2222", "docker-container://b", "podman-container://b"
NERDCTL, POD = "nerdctl-container://b", "kube-pod://b-0"


@pytest.mark.parametrize(
    ("address", "code", "said", "complaint"),
    [
        (SSH, 255, "me@far: Permission denied (publickey,password).", "does not ask for a password"),
        (
            SSH,
            255,
            "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
            "is not the one",
        ),
        (
            SSH,
            255,
            "No ED25519 host key is known for far.\nHost key verification failed.",
            "does not know the host's key",
        ),
        (SSH, 255, "ssh: Could not resolve hostname far: Name or service not known", "cannot be resolved"),
        (SSH, 255, "ssh: connect to host far port 2222: Connection refused", "no SSH server listens"),
        (SSH, 255, "ssh: connect to host far port 2222: Connection timed out", "cannot be reached"),
        (SSH, 255, "ssh: connect to host far port 2222: No route to host", "cannot be reached"),
        (SSH, 255, "kex_exchange_identification: Connection closed by remote host", "closed the connection at once"),
        (SSH, 127, "bash: line 1: buildctl: command not found", "no buildctl on far"),
        (SSH, 127, "", "no buildctl on far"),
        (SSH, 1, "error: dial unix /run/x.sock: connect: no such file or directory", "does not listen at /run/x.sock"),
        (SSH, 1, "error: dial unix /run/x.sock: connect: permission denied", "me may not open /run/x.sock on far"),
        (SSH, 3, "something else\n", "ssh ended with code 3: something else"),
        (SSH, None, "", "no answer"),
        (DOCKER, 1, "Error response from daemon: No such container: b", "no container named b"),
        (DOCKER, 1, "Error response from daemon: container 4f0 is not running", "is not running"),
        (DOCKER, 1, "Error response from daemon: Container b is paused, unpause the container", "is paused"),
        (
            DOCKER,
            127,
            'exec failed: exec: "buildctl": executable file not found in $PATH',
            "no buildctl in the container b",
        ),
        (DOCKER, 1, "Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "does not answer"),
        (DOCKER, 1, 'context "far": context not found: open /root/.docker/contexts', "has no such context"),
        (PODMAN, 125, 'Error: no container with name or ID "b" found: no such container', "no container named b"),
        (PODMAN, 255, "Error: can only create exec sessions on running containers", "is not running"),
        (
            PODMAN,
            127,
            'crun: executable file `buildctl` not found in $PATH: "buildctl": not found',
            "no buildctl in the container b",
        ),
        (NERDCTL, 1, 'level=fatal msg="no such container b"', "no container named b"),
        (POD, 1, 'Error from server (NotFound): pods "b-0" not found', "no pod named b-0"),
        (
            POD,
            1,
            "error: cannot exec into a container in a completed pod; current phase is Succeeded",
            "is not running",
        ),
        (POD, 1, "Error from server (BadRequest): container x is not valid for pod b-0", "no container of that name"),
        (POD, 1, 'error: context "x" does not exist', "no such context"),
        (POD, 1, "Error from server (Forbidden): pods is forbidden", "may not run commands"),
        (POD, 1, "error: You must be logged in to the server (Unauthorized)", "does not take your credentials"),
        (POD, 1, "The connection to the server localhost:8080 was refused", "the cluster does not answer"),
    ],
)
def test_each_way_to_fail_has_its_sentence(address: str, code: int | None, said: str, complaint: str) -> None:
    error = program_failure(Address.parse(address), code, said, "no answer")
    assert complaint in error.message
    assert error.message.startswith(f"no builder answers at {address}")
    assert "\n" not in error.message
    assert error.hint
    assert "{" not in error.message + error.hint


def test_what_comes_from_afar_cannot_steer_the_terminal() -> None:
    error = program_failure(Address.parse(SSH), 1, "\x1b[2Jhello\x07", "no answer")
    assert "\x1b" not in error.message
    assert "hello" in error.message


def test_a_missing_program_is_named() -> None:
    assert "kubectl is not installed" in program_missing(Address.parse(POD), "kubectl").message


@pytest.mark.parametrize(
    ("address", "command"),
    [
        (
            "ssh://me@far:2222/a b.sock",
            ("-l", "me", "-p", "2222", "--", "far", "buildctl", "--addr", "'unix:///a b.sock'"),
        ),
        ("ssh://far", ("--", "far", "buildctl", "dial-stdio")),
        (
            "docker-container://b?context=c",
            ("docker", "--context=c", "exec", "-i", "b", "buildctl", "dial-stdio"),
        ),
        ("podman-container://b", ("podman", "exec", "-i", "b", "buildctl", "dial-stdio")),
        ("nerdctl-container://b?namespace=k8s.io", ("nerdctl", "--namespace=k8s.io", "exec", "-i", "b")),
        (
            "kube-pod://p?context=x&namespace=n&container=c",
            ("kubectl", "--context=x", "--namespace=n", "exec", "-i", "--container=c", "p", "--", "buildctl"),
        ),
    ],
)
def test_the_command_of_an_address(address: str, command: tuple[str, ...]) -> None:
    made = dial_command(Address.parse(address))
    joined, expected = "\0".join(made), "\0".join(command)
    assert expected in joined
    if made[0] == "ssh":
        assert "BatchMode=yes" in made
