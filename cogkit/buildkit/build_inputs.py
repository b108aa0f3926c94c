"""What a build gets from this machine beside folders: logins, secrets and SSH agents, as a program gives them.

`services_for` turns plain values into services of the session.  This file must not read flags or decide what a build
may have: what is not given here does not exist for the daemon.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, Union

if TYPE_CHECKING:
    from cogkit.buildkit.session.service import Service
    from cogkit.buildkit.session.services.secrets import SecretSource
    from cogkit.buildkit.session.services.ssh import Endpoint
    from cogkit.registry.docker_config import DockerConfig, RegistryLogin

_log = logging.getLogger(__name__)


class Logins(Enum):
    """Whose registry logins a build uses, where no others are given."""

    MACHINE = "those of this machine, as docker login leaves them"


MACHINE_LOGINS: Final = Logins.MACHINE

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
"""No secrets, or no agents."""

AuthInput: TypeAlias = Union["DockerConfig", Mapping[str, "RegistryLogin"], Literal[Logins.MACHINE], None]
"""`MACHINE_LOGINS`, a `DockerConfig`, logins by registry host, or None for none at all."""

SecretInput: TypeAlias = Mapping[str, "bytes | str | os.PathLike[str] | SecretSource"]
"""Secrets by their ids: the value itself (``bytes``, or ``str`` as UTF-8), a file (a `Path`), or a `SecretSource`."""

SshInput: TypeAlias = Mapping[str, "Endpoint | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]"]
"""What is behind each id: the socket of an agent, private keys, () for the agent of this login, or an `Endpoint`."""


def services_for(auth: AuthInput, secrets: SecretInput, ssh: SshInput) -> tuple[Service, ...]:
    """The services of the session.  Blocks: it reads the machine's logins and the SSH keys.

    Raises:
        UsageError: a secret, a key or an agent that is not there.
    """
    # Each is imported only for a build that has it.
    services: list[Service] = []
    if auth is not None:
        from cogkit.buildkit.session.services.auth import Auth

        services.append(Auth(_docker_config(auth)))
    if sources := tuple(_source(id, value) for id, value in secrets.items()):
        from cogkit.buildkit.session.services.secrets import Secrets

        for source in sources:
            source.check()
        services.append(Secrets(sources))
    if ssh:
        from cogkit.buildkit.session.services.ssh import Ssh

        services.append(Ssh({id: _endpoint(id, value) for id, value in ssh.items()}))
    return tuple(services)


def _docker_config(auth: DockerConfig | Mapping[str, RegistryLogin] | Literal[Logins.MACHINE]) -> DockerConfig:
    from cogkit.registry.docker_config import DockerConfig

    if isinstance(auth, Mapping):
        return DockerConfig.of(auth)
    if not isinstance(auth, Logins):
        return auth
    config = DockerConfig.load()
    for fault in config.warnings:
        _log.warning("a registry login is not used: %s", fault)
    return config


def _source(id: str, value: bytes | str | os.PathLike[str] | SecretSource) -> SecretSource:
    from cogkit.buildkit.session.services.secrets import SecretSource

    if isinstance(value, SecretSource):
        return replace(value, id=id)
    if isinstance(value, os.PathLike):
        return SecretSource(id, path=Path(value))
    return SecretSource(id, value=value.encode() if isinstance(value, str) else value)


def _endpoint(id: str, value: Endpoint | str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Endpoint:
    from cogkit.buildkit.session.services.ssh import open_agent

    if isinstance(value, str | os.PathLike):
        return open_agent(id, (Path(value),))
    if isinstance(value, Sequence):
        return open_agent(id, tuple(Path(each) for each in value))
    return value
