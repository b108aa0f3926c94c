"""An image as something to run: what its config says of processes, and a Cog image's schema.

This file must not start anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any, Self

from cogkit.buildkit.errors import BuildError
from cogkit.fast_dataclass import dataclass

if TYPE_CHECKING:
    from cogkit.buildkit.gateway.llb_bridge import GatewayResult, Ref

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SCHEMA_LABELS = ("run.cog.openapi_schema", "org.cogmodel.openapi_schema")
CONFIG_LABELS = ("run.cog.config", "org.cogmodel.config")

_INIT = "tini"
"""An init that images start their command with; the relay is init already."""


@dataclass(frozen=True, slots=True)
class Image:
    """What can be run.

    Attributes:
        ref: Its filesystem.
        env: Its variables.
        entrypoint, command: What is run when nothing else is asked for.
        working_dir: Where.
        user: As whom.
        labels: Its labels.
    """

    ref: Ref
    env: Mapping[str, str] = field(default_factory=dict)
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    working_dir: str = "/"
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_config(cls, ref: Ref, config: Mapping[str, Any]) -> Self:
        """From an OCI image config."""
        inner = config.get("config")
        inner = inner if isinstance(inner, dict) else {}
        env = [str(each) for each in inner.get("Env") or ()]
        entrypoint = tuple(map(str, inner.get("Entrypoint") or ()))
        if entrypoint and entrypoint[0].rpartition("/")[2] == _INIT:
            entrypoint = entrypoint[2:] if entrypoint[1:2] == ("--",) else entrypoint[1:]
        return cls(
            ref=ref,
            env={"PATH": DEFAULT_PATH, **dict(each.split("=", 1) for each in env if "=" in each)},
            entrypoint=entrypoint,
            command=tuple(map(str, inner.get("Cmd") or ())),
            working_dir=str(inner.get("WorkingDir") or "/"),
            user=str(inner.get("User") or ""),
            labels={str(name): str(value) for name, value in (inner.get("Labels") or {}).items()},
        )

    @classmethod
    def of_result(cls, result: GatewayResult) -> Self:
        """From what a frontend made; of an image for several platforms the first.

        Raises:
            BuildError: the image is empty.
        """
        ref = result.ref or next(iter(result.refs.values()), None)
        if ref is None:
            raise BuildError("the image is empty: there is nothing to run", hint="see what its Dockerfile makes")
        return cls.of_config(ref, next(iter(result.image_configs().values()), {}))

    def args(self, command: Sequence[str]) -> list[str]:
        """The command line for ``command``, or for the image's own if that is empty."""
        return [*self.entrypoint, *(command or self.command)]

    @property
    def schema(self) -> Mapping[str, Any] | None:
        """The OpenAPI schema of a Cog image; None without a usable one."""
        text = next((self.labels[name] for name in SCHEMA_LABELS if self.labels.get(name)), "")
        try:
            schema = json.loads(text) if text else None
        except (ValueError, RecursionError):
            return None
        return schema if isinstance(schema, dict) else None

    @property
    def is_of_cog(self) -> bool:
        """Whether Cog, or cogkit, made it."""
        return any(name in self.labels for name in CONFIG_LABELS)

    @property
    def wants_gpu(self) -> bool:
        """Whether its project said that it needs one."""
        text = next((self.labels[name] for name in CONFIG_LABELS if self.labels.get(name)), "")
        try:
            config = json.loads(text) if text else {}
            return bool(config["build"]["gpu"])
        except (ValueError, LookupError, TypeError, RecursionError):
            return False
