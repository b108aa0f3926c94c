"""Logging in at a registry: finding out whether a login is good, and keeping it as ``docker login`` keeps it.

The check is that of the Docker engine (``registry/auth.go``): ``GET /v2/``, with a token of the service that the
registry names if it names one.  A login is kept by the credential helper that ``config.json`` names, else in that file.
Everything blocks.  This file must not ask the user anything, or put a password into a message.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from cogkit.atomic_file import replace_whole
from cogkit.errors import CogkitError, ConfigError, UsageError
from cogkit.output_file import output_error
from cogkit.registry.docker_config import (
    HELPER_PREFIX,
    HELPER_TIMEOUT,
    HUB_HOST,
    HUB_KEY,
    CredentialHelperError,
    CredentialHelperMissingError,
    DockerConfig,
    RegistryLogin,
    config_path,
)
from cogkit.registry.token import TIMEOUT, TokenError, TokenRequest, fetch_token
from cogkit.registry.transport import Transport, TransportError, is_loopback

_HUB_NAMES = frozenset({"", HUB_HOST, HUB_KEY, "docker.io", "index.docker.io"})
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]+)?")
_PARAMETER = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class LoginRefusedError(CogkitError):
    """The registry does not take the login, or cannot be asked."""


def registry_key(name: str) -> str:
    """The name under which a registry's login is kept.

    Args:
        name: ``HOST``, ``HOST:PORT``, or either as a URL; empty for Docker Hub.

    Raises:
        UsageError: it is not a registry.
    """
    if name in _HUB_NAMES:
        return HUB_KEY
    host = urlsplit(name).netloc if "://" in name else name.rstrip("/")
    if host and host in _HUB_NAMES:
        return HUB_KEY
    if not _HOST.fullmatch(host):
        raise UsageError(f"{name} is not a registry (HOST or HOST:PORT)", hint="for example ghcr.io")
    return host


def check_login(key: str, login: RegistryLogin) -> None:
    """Ask the registry whether it takes the login.

    Args:
        key: As `registry_key` gives it.
        login: User and password.

    Raises:
        LoginRefusedError: it does not, or it does not answer.
    """
    host = HUB_HOST if key == HUB_KEY else key
    local = is_loopback((urlsplit(f"//{host}").hostname) or "")
    problem: TransportError | None = None
    # As docker: a registry on this machine itself need not speak HTTPS.
    for scheme in ("https", "http") if local else ("https",):
        try:
            _check_at(f"{scheme}://{host}/v2/", host, login)
        except TransportError as error:
            problem = error
        else:
            return
    raise LoginRefusedError(
        f"the registry {host} cannot be reached: {problem}", hint="check the name, and whether it is up"
    ) from problem


def _check_at(url: str, host: str, login: RegistryLogin) -> None:
    pair = f"{login.username}:{login.password}".encode("utf-8", "surrogateescape")
    status, challenge = _get(url, f"Basic {b64encode(pair).decode()}")
    if status == 401 and challenge.lower().startswith("bearer "):
        parameters = dict(_PARAMETER.findall(challenge))
        wanted = TokenRequest(host, parameters.get("realm", ""), parameters.get("service", ""))
        try:
            token = fetch_token(wanted, login)
        except TokenError as refusal:
            raise LoginRefusedError(refusal.message, hint="check user and password") from refusal
        status, _ = _get(url, f"Bearer {token.value}")
    if status == 401:
        raise LoginRefusedError(f"the registry {host} refuses this user and password", hint="check both")
    if status >= 300:
        raise LoginRefusedError(f"the registry {host} answers {status}", hint="check the name")


def _get(url: str, authorization: str) -> tuple[int, str]:
    """Status and challenge of an answer; redirects are not followed, for they would take the password elsewhere."""
    headers = {"Authorization": authorization}
    with Transport(connections=1).request("GET", url, headers, timeout=TIMEOUT) as response:
        return response.status, response.header("WWW-Authenticate")


# ---- keeping it


def keep_login(key: str, login: RegistryLogin, environ: Mapping[str, str] = os.environ) -> str:
    """Keep a login where docker and the builder's client will find it.

    Args:
        key: As `registry_key` gives it.
        login: User and password.
        environ: Says where ``config.json`` is.

    Returns:
        Where it is kept: the helper's program, or the file.

    Raises:
        ConfigError: ``config.json`` cannot be understood; it is left as it is.
        OutputError: it cannot be written.
        CredentialHelperError, CredentialHelperMissingError: the helper failed, or is not installed.
    """
    config = DockerConfig.load(environ)
    helper = config.helpers.get(key, config.store)
    if helper:
        _tell_helper(helper, key, login)
        return f"{HELPER_PREFIX}{helper}"
    path = config_path(environ)
    _write_login(path, key, login)
    return str(path)


def _tell_helper(name: str, key: str, login: RegistryLogin) -> None:
    program = f"{HELPER_PREFIX}{name}"
    found = None if "/" in name else shutil.which(program)
    if found is None:
        raise CredentialHelperMissingError(
            f"the Docker config has {program} keep logins, and there is no such program in PATH",
            hint=f"install it, or take it out of {config_path()}",
        )
    message = json.dumps({"ServerURL": key, "Username": login.username, "Secret": login.password})
    try:
        done = subprocess.run(
            [found, "store"], input=message.encode(), capture_output=True, timeout=HELPER_TIMEOUT, check=False
        )
    except subprocess.TimeoutExpired:
        raise CredentialHelperError(f"{program} did not answer within {HELPER_TIMEOUT:g} seconds") from None
    except OSError as problem:
        raise CredentialHelperError(f"{program} cannot be run: {problem.strerror}") from problem
    if done.returncode != 0:
        said = (done.stdout or done.stderr).decode("utf-8", "replace").strip().splitlines() or [""]
        reason = said[0].replace(login.password, "…")[:200] or f"exit code {done.returncode}"
        raise CredentialHelperError(f"{program} did not keep the login: {reason}")


def _write_login(path: Path, key: str, login: RegistryLogin) -> None:
    """Put the login into the file and leave everything else in it as it is; the file appears whole or not at all."""
    # A link, as dotfiles are kept, stays one.
    path = Path(os.path.realpath(path))
    try:
        content = json.loads(path.read_bytes() or b"{}")
    except FileNotFoundError:
        content = {}
    except (OSError, ValueError) as problem:
        raise ConfigError(f"cannot be read: {problem}", where=str(path)) from problem
    pair = f"{login.username}:{login.password}".encode("utf-8", "surrogateescape")
    auths = content.setdefault("auths", None) or {} if isinstance(content, dict) else None
    if not isinstance(auths, dict):
        raise ConfigError("auths is not an object; the file is left as it is", where=str(path))
    content["auths"] = auths | {key: {"auth": b64encode(pair).decode()}}
    data = json.dumps(content, indent="\t", ensure_ascii=False).encode() + b"\n"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_whole(path, data, 0o600)
    except OSError as problem:
        raise output_error(problem, str(path)) from problem
