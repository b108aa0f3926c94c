"""The user's registry logins, as ``docker login`` leaves them: ``config.json``, credential stores and helpers.

Facts are from the Docker CLI (``cli/config/configfile``, ``cli/config/credentials``) and docker-credential-helpers
(``client/client.go``).  Everything here blocks; call it in a thread.  This file must not talk to a registry, write
anything, or put a password into a message, a ``repr`` or a log.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, ParamSpec, Self
from urllib.parse import urlsplit

from cogkit.errors import CogkitError, ConfigError
from cogkit.fast_dataclass import dataclass

P = ParamSpec("P")

HUB_HOST = "registry-1.docker.io"
"""Host that serves ``docker.io`` images, as the daemon asks for it."""

HUB_KEY = "https://index.docker.io/v1/"
"""The name of Docker Hub in ``config.json`` and in credential stores."""

HELPER_PREFIX = "docker-credential-"
HELPER_TIMEOUT = 50.0
"""Seconds for a credential helper, which may ask the user; buildkitd waits for 60."""

_HUB_NAMES = frozenset({HUB_HOST, "docker.io", "index.docker.io"})
_HUB_BACKED = frozenset({"dhi.io", "registry.scout.docker.com"})
"""Registries of Docker's that take the login of Docker Hub (buildx ``util/dockerutil/dockerconfig``)."""

_TOKEN_USER = "<token>"
_NOT_FOUND = "credentials not found in native keychain"


@dataclass(frozen=True, slots=True)
class RegistryLogin:
    """How to log in at one registry; all empty for none.

    Attributes:
        username: User of ``password``.
        password: Password or access token of ``username``.
        identity_token: An OAuth refresh token, used instead of a user and a password.
        registry_token: A bearer token to show the registry as it is.
    """

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)

    @property
    def user(self) -> str:
        """The user that goes with `secret`; empty if that is an identity token."""
        return "" if self.identity_token else self.username

    @property
    def secret(self) -> str:
        """What proves who one is: the identity token, else the password."""
        return self.identity_token or self.password


class CredentialHelperMissingError(CogkitError):
    """``config.json`` names a credential helper that is not installed."""


class CredentialHelperError(CogkitError):
    """A credential helper failed, or gave no sensible answer."""


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """What one ``config.json`` says of logins.

    Attributes:
        logins: Entries of ``auths``, by their names.
        store: The program that keeps all other logins (``credsStore``); empty for none.
        helpers: Programs for single registries (``credHelpers``).
        environment: Logins from ``DOCKER_AUTH_CONFIG``, which come before all others.
        proxies: What the file says of proxies, by builder or ``default``, as it is.
        warnings: What of the file and the variable is not used, and why; never with a password in it.
    """

    logins: Mapping[str, RegistryLogin] = field(default_factory=dict)
    store: str = ""
    helpers: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, RegistryLogin] = field(default_factory=dict)
    warnings: tuple[ConfigError, ...] = ()
    proxies: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def load(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read ``$DOCKER_CONFIG/config.json`` (``~/.docker`` by default) and ``DOCKER_AUTH_CONFIG``.

        Each entry is read for itself: what is wrong with one, or with a whole source, costs no login of the others and
        is told in `warnings`.  Without a file, or with one that says nothing of logins, the platform's default store is
        used if it is there.
        """
        faults = _Faults()
        path = config_path(environ)
        content = faults.caught(_read_json, path)
        config = cls._parse(content, str(path), faults)
        if not (config.logins or config.store or config.helpers or faults.found):
            config = replace(config, store=_default_store())
        if text := environ.get("DOCKER_AUTH_CONFIG"):
            where = "DOCKER_AUTH_CONFIG"
            entries = faults.caught(_object, faults.caught(_parse_json, text, where), "auths", where)
            config = replace(config, environment=_parse_logins(entries, where, faults))
        return replace(config, warnings=tuple(faults.found))

    @classmethod
    def of(cls, logins: Mapping[str, RegistryLogin]) -> Self:
        """These logins and no others, by the registry's host (``HOST`` or ``HOST:PORT``; ``docker.io`` for the Hub)."""
        return cls({HUB_KEY if host in _HUB_NAMES else host: login for host, login in logins.items()})

    @classmethod
    def _parse(cls, content: dict[str, Any], where: str, faults: _Faults) -> Self:
        helpers = faults.caught(_object, content, "credHelpers", where)
        store = _field(content, "credsStore") or ""
        programs = {name: program for name, program in helpers.items() if isinstance(program, str)}
        if not isinstance(store, str) or len(programs) < len(helpers):
            faults.found.append(ConfigError("credsStore and credHelpers must name programs", where=where))
            store = store if isinstance(store, str) else ""
        logins = _parse_logins(faults.caught(_object, content, "auths", where), where, faults)
        return cls(logins, store, programs, proxies=faults.caught(_object, content, "proxies", where))

    def login(self, host: str) -> RegistryLogin:
        """The login for a registry, as the daemon names it (``HOST`` or ``HOST:PORT``); an empty one if there is none.

        Raises:
            CredentialHelperMissingError: the program that would know is not installed.
            CredentialHelperError: it failed.
        """
        found = self._login(HUB_KEY if host in _HUB_NAMES else host)
        if found == RegistryLogin() and host in _HUB_BACKED:
            return self._login(HUB_KEY)
        return found

    def _login(self, key: str) -> RegistryLogin:
        if key in self.environment:
            return self.environment[key]
        kept = self._login_in_file(key)
        helper = self.helpers.get(key, self.store)
        if not helper:
            return kept
        asked = ask_helper(helper, key)
        return replace(asked, registry_token=kept.registry_token)

    def _login_in_file(self, key: str) -> RegistryLogin:
        if key in self.logins:
            return self.logins[key]
        # Old files have URLs as names.
        return next((login for name, login in self.logins.items() if _host_of(name) == key), RegistryLogin())


def config_path(environ: Mapping[str, str] = os.environ) -> Path:
    """Where ``config.json`` is, whether or not it exists."""
    folder = environ.get("DOCKER_CONFIG")
    if folder:
        return Path(folder, "config.json")
    return Path(environ.get("HOME") or os.path.expanduser("~"), ".docker", "config.json")


def ask_helper(name: str, key: str, *, timeout: float = HELPER_TIMEOUT) -> RegistryLogin:
    """Ask ``docker-credential-<name>`` for a login; an empty one if it has none.

    Raises:
        CredentialHelperMissingError: the program is not installed.
        CredentialHelperError: it failed, took too long, or its answer cannot be understood.
    """
    program = f"{HELPER_PREFIX}{name}"
    # A name with a slash would be looked up as a path.
    found = None if "/" in name else shutil.which(program)
    if found is None:
        raise CredentialHelperMissingError(
            f"the Docker config asks {program} for the login at {key}, and there is no such program in PATH",
            hint=f"install it, or take it out of {config_path()}",
        )
    try:
        done = subprocess.run([found, "get"], input=key.encode(), capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise CredentialHelperError(
            f"{program} did not answer within {timeout:g} seconds", hint=f"try it: echo {key} | {program} get"
        ) from None
    except OSError as problem:
        raise CredentialHelperError(f"{program} cannot be run: {problem.strerror}") from problem
    answer = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        # By the protocol the reason of a failure is on standard output.
        if answer == _NOT_FOUND:
            return RegistryLogin()
        reason = answer or done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
        raise CredentialHelperError(
            f"{program} has no login for {key}: {_first_line(reason)}", hint=f"try it: echo {key} | {program} get"
        )
    return _helper_login(program, answer)


def _helper_login(program: str, answer: str) -> RegistryLogin:
    try:
        content = json.loads(answer)
        user, secret = content.get("Username", ""), content.get("Secret", "")
    except (ValueError, AttributeError):
        user = secret = None
    if not isinstance(user, str) or not isinstance(secret, str):
        # Not shown: it may well hold the password.
        raise CredentialHelperError(f"{program} answered with something that is not a login")
    return RegistryLogin(identity_token=secret) if user == _TOKEN_USER else RegistryLogin(user, secret)


def _first_line(text: str) -> str:
    return text.splitlines()[0][:200]


def _default_store() -> str:
    """The store that the Docker CLI would choose on Linux, if its helper is installed."""
    name = "pass" if shutil.which("pass") else "secretservice"
    return name if shutil.which(f"{HELPER_PREFIX}{name}") else ""


class _Faults:
    """What is wrong with the sources, gathered while they are read."""

    def __init__(self) -> None:
        self.found: list[ConfigError] = []

    def caught(self, read: Callable[P, dict[str, Any]], *args: P.args, **kwargs: P.kwargs) -> dict[str, Any]:
        """What ``read`` returns, or nothing if it is wrong."""
        try:
            return read(*args, **kwargs)
        except ConfigError as fault:
            self.found.append(fault)
            return {}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        # As Go reads JSON: bytes that are not UTF-8 spoil only the text that they are in.
        text = path.read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as problem:
        raise ConfigError(f"cannot read the Docker config: {problem.strerror}", where=str(path)) from problem
    return _parse_json(text, str(path)) if text.strip() else {}


def _parse_json(text: str, where: str) -> dict[str, Any]:
    # What follows the closing brace does not count, as for the Docker CLI.
    start = len(text) - len(text.lstrip())
    try:
        content, _ = json.JSONDecoder().raw_decode(text, start)
    except json.JSONDecodeError as problem:
        raise ConfigError(f"not JSON: {problem.msg}", where=f"{where}:{problem.lineno}:{problem.colno}") from None
    except RecursionError:
        raise ConfigError("not JSON: nested too deeply", where=where) from None
    if not isinstance(content, dict):
        raise ConfigError("a JSON object is wanted", where=where)
    return content


def _field(content: dict[str, Any], key: str) -> object:
    """A field by its name, in whatever case, as Go's JSON has it."""
    if key in content:
        return content[key]
    return next((value for name, value in content.items() if name.lower() == key.lower()), None)


def _object(content: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    value = _field(content, key) or {}
    if not isinstance(value, dict):
        raise ConfigError(f"{key} must be an object", where=where)
    return value


def _parse_logins(entries: dict[str, Any], where: str, faults: _Faults) -> dict[str, RegistryLogin]:
    logins = {}
    for name, entry in entries.items():
        try:
            logins[name] = _parse_login(name, entry, where)
        except ConfigError as fault:
            faults.found.append(fault)
    return logins


def _parse_login(name: str, entry: object, where: str) -> RegistryLogin:
    if entry is None:
        return RegistryLogin()
    if not isinstance(entry, dict):
        raise ConfigError(f"the login for {name} must be an object", where=where)
    keys = ("username", "password", "auth", "identitytoken", "registrytoken")
    values = {key: value for key in keys if (value := _field(entry, key)) is not None}
    texts = {key: value for key, value in values.items() if isinstance(value, str)}
    if len(texts) < len(values):
        raise ConfigError(f"the login for {name} has a value that is not text", where=where)
    user, password = texts.get("username", ""), texts.get("password", "")
    if auth := texts.get("auth"):
        user, password = _decode_auth(name, auth, where)
    return RegistryLogin(user, password, texts.get("identitytoken", ""), texts.get("registrytoken", ""))


def _decode_auth(name: str, auth: str, where: str) -> tuple[str, str]:
    try:
        # Go skips line breaks in base64.
        encoded = auth.replace("\r", "").replace("\n", "")
        user, colon, password = b64decode(encoded, validate=True).decode("utf-8", "surrogateescape").partition(":")
    except (Base64Error, ValueError):
        user = colon = password = ""
    if not user or not colon:
        # Not shown: it is the password, or meant to be.
        raise ConfigError(
            f"auth of {name} is not the base64 of USER:PASSWORD", where=where, hint=f"docker login {name} renews it"
        )
    return user, password.strip("\0")


def _host_of(name: str) -> str:
    """The host, and the port if there is one, of a name that may be a URL."""
    if "://" in name:
        try:
            parts = urlsplit(name)
            if parts.hostname:
                host = f"[{parts.hostname}]" if ":" in parts.hostname and parts.port else parts.hostname
                return f"{host}:{parts.port}" if parts.port else host
        except ValueError:
            pass  # no URL after all
    return name.partition("/")[0]
