"""``cogkit login``: log in to a registry."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from cogkit.cli.flags import DebugFlag, NoColorFlag
from cogkit.errors import UsageError

EXAMPLES = """
\b
Examples:
  cogkit login                                                   to Replicate, with a token from its website
  cogkit login ghcr.io                                           to any registry, with user and password
  cogkit login ghcr.io -u me --password-stdin < token.txt        in a script
"""

LOGIN = "The login"

RegistryArgument = Annotated[
    str | None,
    typer.Argument(metavar="REGISTRY", help="HOST or HOST:PORT, as --registry.", show_default=False),
]
LoginRegistryFlag = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="HOST",
        envvar="COG_REGISTRY_HOST",
        show_envvar=False,
        help="Registry to log in to; else COG_REGISTRY_HOST, else Replicate's.",
        rich_help_panel=LOGIN,
    ),
]
UsernameFlag = Annotated[
    str | None, typer.Option("-u", "--username", metavar="NAME", help="User.", rich_help_panel=LOGIN)
]
PasswordStdinFlag = Annotated[
    bool,
    typer.Option("--password-stdin", help="Read the password from standard input.", rich_help_panel=LOGIN),
]
TokenStdinFlag = Annotated[
    bool,
    typer.Option(
        "--token-stdin",
        help="Read the token from standard input instead of opening a browser; it is at"
        " https://replicate.com/auth/token.",
        rich_help_panel=LOGIN,
    ),
]


def login(
    registry_argument: RegistryArgument = None,
    registry: LoginRegistryFlag = None,
    username: UsernameFlag = None,
    password_stdin: PasswordStdinFlag = False,
    token_stdin: TokenStdinFlag = False,
    no_color: NoColorFlag = False,
    debug: DebugFlag = False,
) -> None:
    """Log in to a container registry.

    Replicate's registry (r8.im) takes a token.
    All other registries take a username and password.

    The registry is asked whether they are right; then they are kept where docker keeps them, by its credential helper
    if it has one.
    """
    from cogkit.dockerfile import DEFAULT_REGISTRY_HOST
    from cogkit.project.replicate import user_of
    from cogkit.registry.docker_config import RegistryLogin
    from cogkit.registry.login import check_login, keep_login, registry_key

    # The flag may come from the environment, the argument never does.
    host = registry_argument or registry or DEFAULT_REGISTRY_HOST
    if password_stdin and token_stdin:
        raise UsageError("--password-stdin and --token-stdin both want standard input", hint="give one of them")
    if host == DEFAULT_REGISTRY_HOST and not password_stdin:
        token = _secret_from_stdin("token") if token_stdin else _ask_for_token(host)
        user = user_of(host, token)
        keep_login(host, RegistryLogin(user, token))
        _say(f"You've successfully authenticated as {user}! You can now use the {host} registry.")
        return
    key = registry_key(host)
    from_stdin = password_stdin or token_stdin
    if from_stdin and not username:
        raise UsageError("a password from standard input needs a user", hint="give it with --username")
    if not from_stdin:
        _require_terminal()
        _say(f"Logging in to {host}")
    user = username or _asked("Username")
    if not user or ":" in user:
        raise UsageError("username cannot be empty" if not user else "a user's name has no ':'")
    password = _secret_from_stdin("password") if from_stdin else _asked("Password", hidden=True)
    if not password:
        raise UsageError("password cannot be empty")
    found = RegistryLogin(user, password)
    check_login(key, found)
    place = keep_login(key, found)
    _say(f"Login succeeded for {host}, kept in {place}")


def _ask_for_token(host: str) -> str:
    from cogkit.project.replicate import token_page

    _require_terminal("--token-stdin")
    page = token_page(host)
    _say(
        f"This command will authenticate Docker with Replicate's '{host}' Docker registry. You will need a Replicate"
        " account.\n"
    )
    typer.prompt(
        "Hit enter to get started. A browser will open with an authentication token that you need to paste here",
        default="",
        show_default=False,
        prompt_suffix=". ",
        err=True,
    )
    _say(f"If it didn't open automatically, open this URL in a web browser:\n{page}")
    typer.launch(page)
    _say("\nOnce you've signed in, copy the token from that web page, paste it here, then hit enter:\n")
    return _asked("Token", hidden=True)


def _require_terminal(instead: str = "--username and --password-stdin") -> None:
    if not sys.stdin.isatty():
        raise UsageError("standard input is not a terminal, so nothing can be asked there", hint=f"use {instead}")


def _asked(what: str, *, hidden: bool = False) -> str:
    """What the user types; an empty line is an answer too."""
    return str(typer.prompt(what, default="", show_default=False, hide_input=hidden, err=True)).strip()


def _secret_from_stdin(what: str) -> str:
    """All of standard input without the line end that ``echo`` and editors leave."""
    try:
        data = os.fsdecode(sys.stdin.buffer.read()).rstrip("\r\n")
    except OSError as problem:
        said = f"the {what} cannot be read from standard input"
        raise UsageError(said, hint="is it closed, or a folder?") from problem
    if "\n" in data:
        raise UsageError(f"the {what} on standard input has several lines", hint=f"give the {what} alone")
    return data.strip() if what == "token" else data


def _say(text: str) -> None:
    typer.echo(text, err=True)
