"""The session's services for one build: logins, secrets and agents, made from the user's options.

Everything that is wrong with them shows here, before a builder is asked for anything.  This file must not know how they
are served.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable

from cogkit.building.observer import BuildObserver
from cogkit.building.options import BuildOptions, SshSpec
from cogkit.building.remote_context import is_git_over_ssh
from cogkit.buildkit.session.service import Service
from cogkit.buildkit.session.services.auth import Auth
from cogkit.buildkit.status import Instant, SolveStatus, Vertex
from cogkit.registry.docker_config import DockerConfig


def open_services(options: BuildOptions, observer: BuildObserver, config: DockerConfig) -> tuple[Service, ...]:
    """The services; none for secrets or agents if there are none, because the daemon's own words are then better.

    Raises:
        UsageError: a secret or an agent that is not there.
    """
    services: list[Service] = [Auth(config, warn=observer.on_warning, announce=_shown_as_step(observer))]
    for secret in options.secrets:
        secret.check()
    # Each is imported only for a build that has it: together they are a twentieth of an unchanged build.
    if options.secrets:
        from cogkit.buildkit.session.services.secrets import Secrets

        services.append(Secrets(options.secrets))
    agents = options.ssh or _agent_for_git(options)
    if agents:
        from cogkit.buildkit.session.services.ssh import Ssh, open_agent, open_socket

        services.append(
            Ssh(
                {
                    spec.id: open_socket(spec.id, spec.paths[0]) if spec.raw else open_agent(spec.id, spec.paths)
                    for spec in agents
                }
            )
        )
    return tuple(services)


def _agent_for_git(options: BuildOptions) -> tuple[SshSpec, ...]:
    """The user's agent, unasked, if the context is a Git repository that is reached by SSH, as buildx has it."""
    context = options.context
    if context is None or not is_git_over_ssh(os.fspath(context)) or os.path.isdir(context):
        return ()
    return (SshSpec("default"),) if os.environ.get("SSH_AUTH_SOCK") else ()


def docker_config(observer: BuildObserver) -> DockerConfig:
    """What this machine's docker config says of registries and proxies."""
    config = DockerConfig.load()
    for fault in config.warnings:
        # What is wrong with it need not matter to this build.
        observer.on_warning(f"a registry login is not used: {fault}")
    return config


def _shown_as_step(observer: BuildObserver) -> Callable[[str], None]:
    """Show what happens with a login as buildx does: a step of its own."""

    def announce(text: str) -> None:
        now = Instant.at(*divmod(time.time_ns(), 1_000_000_000))
        name = f"[auth] {text}"
        digest = f"sha256:{hashlib.sha256(f'{name} {now}'.encode()).hexdigest()}"
        observer.on_status(SolveStatus(vertexes=(Vertex(digest, name, started=now, completed=now),)))

    return announce
