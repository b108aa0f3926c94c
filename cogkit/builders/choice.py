"""Where a build goes: what the user named, the chosen builder, or the first one that is found.

The order: an address or a builder's name; ``BUILDKIT_HOST``; the chosen builder of the list; the usual sockets of
buildkitd; a Docker engine; the private builder.  Of what was not named only that counts which answers: a socket that
nobody listens on is passed over.  This file must not connect to a daemon, nor start one.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from cogkit.builders.config_file import read_builders, unknown_builder
from cogkit.builders.records import DEFAULT, PRIVATE, Builder, Builders, Node, PrivateSettings
from cogkit.buildkit.connect.address import SYSTEM_SOCKET, Address
from cogkit.buildkit.errors import BuilderUnreachableError
from cogkit.errors import UsageError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit.buildkit.connect.address import TlsConfig

_CONNECT_SECONDS = 1.0
_DOCKER_SOCKETS = ("/var/run/docker.sock",)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a build goes.

    Attributes:
        builder: Its nodes; none for the private builder, which may have to be started to have an address.
        private: How the private builder runs, if it is that one.
        why: What led to it, for people: ``--builder``, ``BUILDKIT_HOST``, ``the usual socket`` …
        passed_over: What was there and did not answer, each with the reason.
    """

    builder: Builder
    why: str
    private: PrivateSettings | None = None
    passed_over: tuple[str, ...] = ()


def choose(
    address: str | None = None,
    name: str | None = None,
    *,
    tls: TlsConfig | None = None,
    environ: Mapping[str, str] | None = None,
    system_socket: str = SYSTEM_SOCKET,
) -> Target:
    """Decide where a build goes.

    Args:
        address: The address that the user named.
        name: The builder that the user named, with labels that its nodes must have: ``farm,gpu=a100``.
        tls: TLS files that the user named; they go with an address.
        environ: Stands for `os.environ`.
        system_socket: Stands for the system's socket.

    Raises:
        UsageError: the words make no sense, or name nothing.
        ConfigError: the list of builders cannot be used.
        BuilderUnreachableError: there is no builder.
    """
    environ = os.environ if environ is None else environ
    if address and name:
        raise UsageError(f"two builders are named: {address} and {name}", hint="give either --addr or --builder")
    if address:
        return _named_by_address(address, tls, "the address")
    if name:
        return _named(name, tls, environ, system_socket)
    if host := environ.get("BUILDKIT_HOST"):
        try:
            return _named_by_address(host, tls, "BUILDKIT_HOST")
        except UsageError as error:
            error.where = error.where or "BUILDKIT_HOST"
            raise
    builders = read_builders()
    if builders.current in (None, DEFAULT):
        return _found(builders, tls, environ, system_socket)
    assert builders.current is not None
    return _of_list(builders, builders.current, {}, tls, "chosen with `cogkit builder use`")


def _named_by_address(text: str, tls: TlsConfig | None, why: str) -> Target:
    address = Address.parse(text)
    return Target(Builder(str(address), (Node(str(address), text, tls),)), why)


def _named(text: str, tls: TlsConfig | None, environ: Mapping[str, str], system_socket: str) -> Target:
    name, *wanted = text.split(",")
    labels = {}
    for each in wanted:
        key, sign, value = each.partition("=")
        if not key or not sign:
            raise UsageError(
                f"{each!r} is not a label, in the builder {text!r}", hint="write --builder NAME,LABEL=VALUE"
            )
        labels[key] = value
    if "://" in name:
        raise UsageError(f"{name!r} is an address, not a builder's name", hint=f"write --addr {name}")
    builders = read_builders()
    if name == DEFAULT:
        return _found(builders, tls, environ, system_socket)
    return _of_list(builders, name, labels, tls, "--builder")


def _of_list(builders: Builders, name: str, labels: Mapping[str, str], tls: TlsConfig | None, why: str) -> Target:
    if tls is not None:
        raise UsageError(
            f"TLS options do not go with the builder {name!r}", hint="its entry in the list has them, or give --addr"
        )
    if name == PRIVATE:
        return Target(Builder(PRIVATE, ()), why, builders.private)
    builder = builders.builders.get(name)
    if builder is None:
        raise unknown_builder(name, builders.builders)
    if labels:
        nodes = tuple(node for node in builder.nodes if labels.items() <= node.labels.items())
        if not nodes:
            said = ", ".join(f"{key}={value}" for key, value in labels.items())
            raise UsageError(
                f"no node of the builder {name!r} has {said}", hint=f"look at `cogkit builder inspect {name}`"
            )
        builder = replace(builder, nodes=nodes)
    return Target(builder, why)


def _found(builders: Builders, tls: TlsConfig | None, environ: Mapping[str, str], system_socket: str) -> Target:
    if tls is not None:
        raise UsageError("TLS options do not go with a builder on this machine", hint="give the builder's address, too")
    dead: list[str] = []
    for path in _buildkit_sockets(environ, system_socket):
        if (reason := _refusal(path)) is None:
            return _found_at(f"unix://{path}", "a usual socket", dead)
        dead += [f"{path}: {reason}"] if reason else []
    for path in _docker_sockets(environ):
        address = f"docker://{path}"
        if not _is_understood(address):
            continue
        if (reason := _refusal(path)) is None:
            return _found_at(address, "a Docker engine", dead)
        dead += [f"{path}: {reason}"] if reason else []
    _require_programs(_buildkit_sockets(environ, system_socket), dead)
    return Target(Builder(PRIVATE, ()), "no other was found", builders.private, tuple(dead))


def _found_at(address: str, why: str, dead: list[str]) -> Target:
    return Target(Builder(address, (Node(address, address),)), why, passed_over=tuple(dead))


def _require_programs(sockets: list[str], dead: list[str]) -> None:
    """Say that there is no builder at all, rather than only that the private one lacks something.

    One that runs already needs nothing more.
    """
    from cogkit.builders import private, supervisor
    from cogkit.builders.programs import find_programs

    if supervisor.answering(private.folder()) is not None:
        return
    try:
        find_programs()
    except BuilderUnreachableError as error:
        nowhere = f"there is no socket at {' or '.join(sockets)}"
        if dead:
            nowhere = f"nobody answers ({'; '.join(dead)})"
        raise BuilderUnreachableError(
            f"no builder found: BUILDKIT_HOST is not set, {nowhere}, and {error.message}",
            where=error.where,
            hint=f"{error.hint}; or say where a buildkitd listens with --addr or BUILDKIT_HOST",
        ) from error


def _buildkit_sockets(environ: Mapping[str, str], system_socket: str) -> list[str]:
    sockets = [system_socket]
    if runtime_dir := environ.get("XDG_RUNTIME_DIR"):
        sockets.append(f"{runtime_dir}/buildkit/buildkitd.sock")
    return sockets


def _docker_sockets(environ: Mapping[str, str]) -> list[str]:
    """Sockets of Docker engines on this machine; ``DOCKER_HOST`` alone counts if it is set."""
    if host := environ.get("DOCKER_HOST"):
        return [host.removeprefix("unix://")] if host.startswith("unix://") else []
    sockets = list(_DOCKER_SOCKETS)
    if runtime_dir := environ.get("XDG_RUNTIME_DIR"):
        sockets.append(f"{runtime_dir}/docker.sock")
    return sockets


def _is_understood(address: str) -> bool:
    with suppress(UsageError):
        Address.parse(address)
        return True
    return False


def _refusal(path: str) -> str | None:
    """Why nobody answers at a socket: None if somebody does, and no words if there is none."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(path)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            return (error.strerror or str(error)).lower()
        except ValueError:
            return ""
    return None
