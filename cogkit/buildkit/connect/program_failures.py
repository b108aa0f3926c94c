"""What a program that leads to a daemon says when it fails, in one sentence with the next step.

The programs print for people and in their own words, so this is a list of what they are known to say; whatever else
they say is shown as it is.  This file runs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cogkit.buildkit.connect.address import Address
from cogkit.buildkit.errors import BuilderUnreachableError

_SHOWN = 300

_Failure = tuple[str, str, str]
"""A pattern (any case) of what was said; the reason as the end of "no builder answers at …: "; the hint."""

_AT_THE_FAR_END: Sequence[_Failure] = (
    (
        r'buildctl[\'"]?: (?:executable file |command )?not found|exec: "?buildctl|buildctl: No such file',
        "there is no buildctl {place}, and the way to buildkitd leads through it",
        "put BuildKit's buildctl into a folder of PATH there",
    ),
    (
        r"dial unix (?P<socket>\S+): connect: (?:no such file or directory|connection refused)",
        "buildkitd does not listen at {socket} {place}",
        "start buildkitd there, or give the address the path of its socket",
    ),
    (
        r"dial unix (?P<socket>\S+): connect: permission denied",
        "{user} may not open {socket} {place}",
        "use a user that may (root, or a member of the socket's group)",
    ),
)
_SSH: Sequence[_Failure] = (
    (
        r"\bdocker: (?:command )?not found",
        "there is no docker {place}",
        "install Docker there, in a folder that is in PATH",
    ),
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "the host's key is not the one that ssh knows for it",
        "find out why before you trust it; then forget the old key with `ssh-keygen -R {known_host}`",
    ),
    (
        r"Host key verification failed|No \S+ host key is known",
        "ssh does not know the host's key",
        "connect once with `{ssh}` and check the key that it shows",
    ),
    (
        r"Permission denied \((?P<ways>[^)]*)\)",
        "ssh is let in with none of your keys, and cogkit does not ask for a password (the host takes {ways})",
        "give the host your key with ssh-copy-id, or the agent a key with passphrase with ssh-add; try `{ssh}`",
    ),
    (r"Too many authentication failures", "the host has refused too many keys", "name one key with IdentityFile"),
    (
        r"Could not resolve hostname \S+: (?P<why>.*)",
        "the host name cannot be resolved",
        "check the address, or the host's entry in ~/.ssh/config",
    ),
    (
        r"port (?P<port>\d+): Connection refused",
        "no SSH server listens there (port {port}, connection refused)",
        "check the address and its port",
    ),
    (
        r"(?:Connection|Operation) timed out|No route to host|Network is unreachable",
        "the host cannot be reached",
        "check the address, the network, and that no firewall is in the way",
    ),
    (
        r"kex_exchange_identification|Connection (?:closed|reset) by",
        "the SSH server closed the connection at once",
        "look at its log; it may have too many connections (MaxStartups), or it is not an SSH server",
    ),
    (r"Permissions .* are too open", "ssh does not take a key that others may read", "chmod 600 the key"),
)
_CONTAINER: Sequence[_Failure] = (
    (
        r"No such container|no container with name or ID|no such container",
        "there is no container named {name}",
        "look for its name with `{program} ps --all`",
    ),
    (
        r"is not running|container state improper|can only create exec sessions on running|task .* not found",
        "the container {name} is not running",
        "start it with `{program} start {name}`",
    ),
    (r"is paused", "the container {name} is paused", "let it go on with `{program} unpause {name}`"),
    (r"is restarting", "the container {name} is restarting over and over", "look at `{program} logs {name}`"),
    (
        r"permission denied while trying to connect|dial unix \S*docker\.sock: connect: permission denied",
        "this user may not use the engine",
        "run as root, or become a member of the group docker",
    ),
    (
        r"Cannot connect to the Docker daemon|failed to connect to the docker API|cannot access containerd socket"
        r"|Cannot connect to Podman",
        "the engine that {program} talks to does not answer",
        "start it, or look where {program} expects it (its context, or DOCKER_HOST)",
    ),
    (
        r"context \S+.{0,12}(?:does not exist|not found)",
        "{program} has no such context",
        "list them: `{program} context ls`",
    ),
)
_POD: Sequence[_Failure] = (
    (
        r'pods? "?\S+ not found',
        "there is no pod named {name} in that namespace",
        "look for it with `kubectl get pods --all-namespaces`; a pod gets a new name when it is made anew",
    ),
    (
        r"completed pod|does not have a host assigned|is not running|container not found|unable to upgrade connection",
        "the pod {name} is not running, or has no such container",
        "look at `kubectl describe pod {name}`",
    ),
    (
        r"container \S+ (?:is not valid for|not found in) pod",
        "the pod {name} has no container of that name",
        "look at `kubectl describe pod {name}`",
    ),
    (
        r"context .*does not exist|no context exists",
        "kubectl has no such context",
        "list them: `kubectl config get-contexts`",
    ),
    (
        r"\(Forbidden\)|cannot create resource \"pods/exec\"",
        "you may not run commands in that pod",
        "ask for the right to create pods/exec in that namespace",
    ),
    (
        r"\(Unauthorized\)|You must be logged in|provide credentials",
        "the cluster does not take your credentials",
        "log in to it again, and try `kubectl get pods`",
    ),
    (
        r"connection to the server .* was refused|Unable to connect to the server|no such host|i/o timeout",
        "the cluster does not answer",
        "check kubectl's context and the network with `kubectl get pods`",
    ),
)


def program_missing(address: Address, program: str) -> BuilderUnreachableError:
    """The program that leads to ``address`` is not installed."""
    return BuilderUnreachableError(
        f"no builder answers at {address}: the program {program} is not installed, or not in PATH",
        hint=f"install {program}, or use an address that does without it",
    )


def program_failure(address: Address, code: int | None, said: str, otherwise: str) -> BuilderUnreachableError:
    """Why a program did not get to the daemon.

    Args:
        address: The daemon.
        code: The program's exit code; None if it still runs.
        said: What it wrote to its standard error.
        otherwise: The reason to give if it has not failed.
    """
    words = _words(address)
    for pattern, reason, hint in _known(address):
        found = re.search(pattern, said, re.IGNORECASE)
        if found is not None:
            words |= {name: (value or "").strip() for name, value in found.groupdict().items()}
            return _unreachable(address, reason.format_map(words), hint.format_map(words))
    if code is None:
        hint = f"look at the log of buildkitd {words['place']}; it may be stopped or overloaded"
        return _unreachable(address, otherwise, hint)
    if code == 127:
        _, reason, hint = _AT_THE_FAR_END[0]
        return _unreachable(address, reason.format_map(words), hint.format_map(words))
    line = _last_line(said)
    ended = f"{words['program']} ended with code {code}" + (f": {line}" if line else " and said nothing")
    return _unreachable(address, ended, f"try it by hand: {words['by_hand']}")


def _known(address: Address) -> Sequence[_Failure]:
    own = {"ssh": _SSH, "kube-pod": _POD}.get(address.scheme, _CONTAINER)
    return (*own, *_AT_THE_FAR_END) if address.scheme == "ssh" else (*_AT_THE_FAR_END, *own)


def _words(address: Address) -> dict[str, str]:
    name = address.host
    if address.scheme == "ssh":
        port = f"-p {address.port} " if address.port else ""
        ssh = f"ssh {port}{address.user}@{name}" if address.user else f"ssh {port}{name}"
        known = f"[{name}]:{address.port}" if address.port not in (0, 22) else name
        return {
            **{"program": "ssh", "name": name, "place": f"on {name}", "user": address.user or "your user there"},
            **{"ssh": ssh, "known_host": f"'{known}'", "by_hand": f"`{ssh} buildctl debug workers`"},
        }
    user = "its user"
    if address.scheme == "kube-pod":
        by_hand = f"`kubectl exec {name} -- buildctl debug workers`"
        return {"program": "kubectl", "name": name, "place": f"in the pod {name}", "user": user, "by_hand": by_hand}
    program = address.scheme.removesuffix("-container")
    by_hand = f"`{program} exec {name} buildctl debug workers`"
    return {"program": program, "name": name, "place": f"in the container {name}", "user": user, "by_hand": by_hand}


def _last_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    # What comes from afar must not steer the terminal.
    return "".join(each if each.isprintable() else " " for each in lines[-1])[:_SHOWN] if lines else ""


def _unreachable(address: Address, reason: str, hint: str) -> BuilderUnreachableError:
    return BuilderUnreachableError(f"no builder answers at {address}: {reason}", hint=hint)
