"""``cogkit builder``: the list of builders, and the private one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cogkit.cli.flags import DebugFlag, JsonFlag, NoColorFlag, TlsCaFlag, TlsCertFlag, TlsKeyFlag, TlsServerNameFlag
from cogkit.errors import UsageError

if TYPE_CHECKING:
    from cogkit.builders.inspection import NodeState
    from cogkit.builders.records import Builder, Node

HELP = """Choose builders, and look after the one that is yours.

A build goes to --addr or --builder, else to BUILDKIT_HOST, else to the builder chosen with `use`, else to a
buildkitd or Docker engine on this machine, else to a private buildkitd that cogkit starts, reuses and ends when idle.
"""

EXAMPLES = """
\b
Examples:
  cogkit builder ls                                              all builders, and whether they answer
  cogkit builder create team tcp://build.example.com:1234 --use  add one and choose it
  cogkit builder create farm tcp://a.example.com:1234 --append   one more node, which makes a farm
  cogkit builder install                                         get buildkitd for the private builder
"""

NODE = "The node"

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A builder's name.", show_default=False)]
OptionalNameArgument = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="A builder's name; else where a build would go.", show_default=False),
]
AddressArgument = Annotated[
    str, typer.Argument(metavar="ADDRESS", help="Where it listens, as for --addr.", show_default=False)
]
UseFlag = Annotated[bool, typer.Option("--use", help="Choose it at once.")]
AppendFlag = Annotated[bool, typer.Option("--append", help="Add a node to a builder that is there.")]
CacheFlag = Annotated[
    str | None,
    typer.Option("--cache", metavar="REPOSITORY", help="Share the build cache of all builds there, in a registry."),
]
NodeFlag = Annotated[
    str | None, typer.Option("--node", metavar="NAME", help="The node's name in a farm.", rich_help_panel=NODE)
]
PlatformFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--platform",
        metavar="OS/ARCH",
        help="A platform that it builds natively; may be repeated.",
        rich_help_panel=NODE,
    ),
]
LabelFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--label",
        metavar="KEY=VALUE",
        help="What it is or has, to choose it by; may be repeated.",
        rich_help_panel=NODE,
    ),
]
WeightFlag = Annotated[
    float | None,
    typer.Option("--weight", metavar="NUMBER", help="Its share of the builds; 1 is usual.", rich_help_panel=NODE),
]
MaxBuildsFlag = Annotated[
    int | None,
    typer.Option("--max-builds", metavar="NUMBER", help="With so many builds it is full.", rich_help_panel=NODE),
]
AgainFlag = Annotated[bool, typer.Option("--again", help="Also if it is there.")]


def ls(json: JsonFlag = False, no_color: NoColorFlag = False, debug: DebugFlag = False) -> None:
    """List the builders, and ask each whether it is there.

    The one with a * is where a build would go.
    """
    from cogkit.builders import private
    from cogkit.builders.choice import choose
    from cogkit.builders.config_file import read_builders
    from cogkit.builders.records import PRIVATE, Builder, Node
    from cogkit.buildkit.errors import BuilderUnreachableError
    from cogkit.cli.ui.builder_view import builders_json, builders_text

    listed = read_builders()
    try:
        target = choose()
    except BuilderUnreachableError:
        target = None
    entries = list(listed.builders.values())
    address = private.state().address
    entries.append(Builder(PRIVATE, (Node(PRIVATE, address),) if address else ()))
    if target is not None and target.builder.name not in {entry.name for entry in entries}:
        entries.insert(0, target.builder)
    states = _look_at(*entries)
    chosen = None if target is None else target.builder.name
    sys.stdout.write(builders_json(entries, states, chosen) if json else builders_text(entries, states, chosen))


def create(
    name: NameArgument,
    address: AddressArgument,
    use: UseFlag = False,
    append: AppendFlag = False,
    cache: CacheFlag = None,
    node: NodeFlag = None,
    platform: PlatformFlag = None,
    label: LabelFlag = None,
    weight: WeightFlag = None,
    max_builds: MaxBuildsFlag = None,
    tlscacert: TlsCaFlag = None,
    tlscert: TlsCertFlag = None,
    tlskey: TlsKeyFlag = None,
    tlsservername: TlsServerNameFlag = None,
    debug: DebugFlag = False,
) -> None:
    """Add a builder to the list, or with --append a node to a builder.

    The list is builders.toml in cogkit's config folder; it can be edited by hand, too.
    """
    from cogkit.builders.config_file import add_builder, add_node, choose_builder, config_path
    from cogkit.buildkit.connect.address import Address

    Address.parse(address)
    entry: dict[str, Any] = {"address": address}
    if platform:
        entry["platforms"] = list(platform)
    if label:
        entry["labels"] = dict(_label(each) for each in label)
    if weight is not None:
        entry["weight"] = weight
    if max_builds is not None:
        entry["max-builds"] = max_builds
    if tls := _tls_entry(tlscacert, tlscert, tlskey, tlsservername):
        entry["tls"] = tls
    if append:
        if cache is not None:
            raise UsageError("--cache belongs to a builder, not to a node", hint="leave out --append or --cache")
        add_node(name, {"name": node or _node_name(address), **entry})
        if use:
            choose_builder(name)
    elif node is not None:
        farm = {"cache": cache} if cache is not None else {}
        add_builder(name, {**farm, "nodes": [{"name": node, **entry}]}, choose=use)
    else:
        add_builder(name, entry if cache is None else {"cache": cache, **entry}, choose=use)
    what = f"node of {name}" if append else f"builder {name}"
    _say(f"added the {what} to {config_path()}{', and chose it' if use else ''}")


def use(name: NameArgument, debug: DebugFlag = False) -> None:
    """Choose where builds go from now on.

    NAME is one of the list, private for the private builder, or default for what is found on this machine.
    --addr, --builder and BUILDKIT_HOST go before it.
    """
    from cogkit.builders.config_file import choose_builder

    choose_builder(name)


def inspect(
    name: OptionalNameArgument = None, json: JsonFlag = False, no_color: NoColorFlag = False, debug: DebugFlag = False
) -> None:
    """Show a builder and what its nodes say of themselves.

    The exit code is 3 if none of them answers.
    """
    from cogkit.builders import private
    from cogkit.builders.choice import choose
    from cogkit.builders.records import PRIVATE, Builder, Node
    from cogkit.cli.exit_codes import exit_code_of
    from cogkit.cli.ui.builder_view import builder_json, builder_text

    target = choose(name=name)
    builder, state = target.builder, None
    if target.private is not None:
        state = private.state()
        builder = Builder(PRIVATE, (Node(PRIVATE, state.address),) if state.address else ())
    (states,) = _look_at(builder)
    show = builder_json if json else builder_text
    sys.stdout.write(show(builder, states, target.why, state))
    errors = [each.error for each in states if each.error is not None]
    if states and len(errors) == len(states):
        raise typer.Exit(exit_code_of(errors[0]))


def rm(name: NameArgument, debug: DebugFlag = False) -> None:
    """Take a builder out of the list, or delete the private one.

    The private builder is ended, and its cache and logs are deleted; the next build that needs it starts it anew.
    """
    from cogkit.builders import private
    from cogkit.builders.config_file import remove_builder
    from cogkit.builders.records import DEFAULT, PRIVATE

    if name == PRIVATE:
        private.remove()
    elif name == DEFAULT:
        raise UsageError(
            f"{DEFAULT!r} is not a builder, it stands for no choice",
            hint="`cogkit builder ls` lists what can be removed",
        )
    else:
        remove_builder(name)


def start(debug: DebugFlag = False) -> None:
    """Start the private builder, unless it runs."""
    from cogkit.builders import private
    from cogkit.builders.config_file import read_builders

    with private.in_use(read_builders().private) as address:
        typer.echo(address)


def stop(debug: DebugFlag = False) -> None:
    """End the private builder; its cache stays.

    Builds that run on it fail.
    """
    from cogkit.builders import private

    if not private.stop():
        _say("the private builder does not run")


def install(again: AgainFlag = False, debug: DebugFlag = False) -> None:
    """Get buildkitd for the private builder.

    It is built from source with Go: this machine's, or one from PyPI that is deleted afterwards. That takes minutes.
    """
    from cogkit.builders.install import install as install_buildkitd

    typer.echo(install_buildkitd(_say, again=again))


def _look_at(*builders: Builder) -> list[list[NodeState]]:
    """What all nodes of all builders say, asked at the same time."""
    from cogkit.builders.inspection import look_at_all
    from cogkit.cli.interruptible import run

    nodes: list[Node] = [node for builder in builders for node in builder.nodes]
    states = iter(run(look_at_all(nodes)))
    return [[next(states) for _ in builder.nodes] for builder in builders]


def _label(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UsageError(f"--label {text}: not a label", hint="for example --label gpu=a100")
    return key, value


def _tls_entry(ca: Path | None, cert: Path | None, key: Path | None, server_name: str | None) -> dict[str, str]:
    """The table of a TLS connection; the files are checked, and named so that every folder finds them."""
    from cogkit.buildkit.connect.address import TlsConfig

    config = TlsConfig(ca=ca, cert=cert, key=key, server_name=server_name)
    if config == TlsConfig():
        return {}
    config.context()
    named = {
        name: str(path.absolute()) for name, path in (("ca", ca), ("cert", cert), ("key", key)) if path is not None
    }
    return named | ({"server-name": server_name} if server_name else {})


def _node_name(address: str) -> str:
    """A name for a node that got none: its host, or the file name of its socket."""
    import re

    from cogkit.buildkit.connect.address import Address

    parsed = Address.parse(address)
    words = parsed.host or Path(parsed.path).parent.name or "node"
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", words).strip("-.") or "node"


def _say(text: str) -> None:
    typer.echo(text, err=True)


SUBCOMMANDS = {
    "ls": (ls, None),
    "create": (create, None),
    "use": (use, None),
    "inspect": (inspect, None),
    "rm": (rm, None),
    "start": (start, None),
    "stop": (stop, None),
    "install": (install, None),
}
