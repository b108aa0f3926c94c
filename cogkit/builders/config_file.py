"""The user's list of builders: ``builders.toml`` in cogkit's config folder.

    current = "team"

    [builders.team]
    address = "tcp://build.example.com:1234"
    tls = {ca = "/home/me/ca.pem", cert = "/home/me/cert.pem", key = "/home/me/key.pem"}

    [builders.farm]
    cache = "registry.example.com/build-cache"

    [[builders.farm.nodes]]
    name = "a"
    address = "tcp://a.example.com:1234"
    platforms = ["linux/amd64"]

The file is the user's, too: an edit keeps comments and order, replaces the file as a whole, and one at a time.  What is
wrong in it is said with file and line.  This file must not connect to anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from cogkit.builders import folders
from cogkit.builders.records import DEFAULT, PRIVATE, RESERVED_NAMES, Builder, Builders, Node, PrivateSettings
from cogkit.errors import CogkitError, ConfigError, LockNotAcquiredError, UsageError

FILE_NAME = "builders.toml"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_PLATFORM = re.compile(r"[a-z0-9_]+/[a-z0-9_]+(?:/[a-z0-9_.]+)?")
_SPACE = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?\s?[kKmMgGtT]?i?[bB]?|[0-9]{1,2}%)")
_TLS_FILES = ("ca", "cert", "key")
_LOCK_SECONDS = 10.0
_AT_LINE = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")
_TWICE = re.compile(r"Cannot (?:declare|mutate immutable namespace) \('builders', '([^']*)'\)|Cannot overwrite a value")


def config_path() -> Path:
    """Where the list of builders is, whether or not it is there."""
    return folders.config_folder() / FILE_NAME


def read_builders(path: Path | None = None) -> Builders:
    """The user's builders; none if there is no such file.

    Raises:
        ConfigError: the file cannot be read or used.
    """
    path = config_path() if path is None else path
    try:
        text = path.read_bytes().decode()
    except FileNotFoundError:
        return Builders()
    except UnicodeDecodeError as error:
        raise ConfigError("the list of builders is not UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise ConfigError(
            f"the list of builders cannot be read: {error.strerror or error}",
            where=str(path),
            hint="check the file and its permissions",
        ) from error
    return parse_builders(text, path)


def parse_builders(text: str, path: Path) -> Builders:
    """The builders in ``text``; ``path`` is for messages and for relative names of files.

    Raises:
        ConfigError: it cannot be used.
    """
    import tomllib

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise toml_error(str(error), text, path) from None
    return _Reader(text, path).builders(document)


def toml_error(said: str, text: str, path: Path) -> ConfigError:
    """What a parser said of a TOML file, with the place."""
    place = _AT_LINE.search(said)
    line = int(place[1]) if place and place[1] else text.count("\n") + 1
    column = f":{place[2]}" if place and place[2] else ""
    where = f"{path}:{line}{column}"
    message = _AT_LINE.sub("", said)
    twice = _TWICE.search(message)
    if twice and twice[1]:
        return ConfigError(f"there are two builders with the name {twice[1]!r}", where=where, hint="rename one of them")
    return ConfigError(
        f"this is not TOML: {message[:1].lower()}{message[1:]}", where=where, hint="correct the line, or remove it"
    )


class _Reader:
    """Checks a parsed document, and knows in which line of the text a key is."""

    def __init__(self, text: str, path: Path) -> None:
        self._text = text
        self._path = path

    def builders(self, document: Mapping[str, Any]) -> Builders:
        self._known(document, (), "current", "builders", "private")
        tables = self._table(document, (), "builders")
        builders = {name: self._builder(name, tables) for name in tables}
        current = self._string(document, (), "current")
        if current is not None and current not in builders and current not in RESERVED_NAMES:
            self._fail(
                ("current",),
                f"the chosen builder {current!r} is not in the list",
                "choose one with `cogkit builder use NAME`",
            )
        return Builders(builders, current, self._private(self._table(document, (), "private")))

    def _builder(self, name: str, tables: Mapping[str, Any]) -> Builder:
        at = ("builders", name)
        if not _NAME.fullmatch(name) or name in RESERVED_NAMES:
            self._fail(at, f"{name!r} cannot be a builder's name", _name_hint(name))
        table = self._table(tables, ("builders",), name)
        of_all = ("nodes", "cache", "answer-seconds")
        self._known(table, at, "address", "tls", "platforms", "labels", "weight", "max-builds", *of_all)
        cache = self._string(table, at, "cache")
        seconds = table.get("answer-seconds", 2.0)
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= 3600:
            self._fail((*at, "answer-seconds"), "answer-seconds is not a number above 0", "write for example 2")
        if "nodes" not in table:
            return Builder(name, (self._node(table, at, name),), cache, float(seconds))
        for key in ("address", "tls", "platforms", "labels", "weight", "max-builds"):
            if key in table:
                self._fail((*at, key), f"a builder with nodes has no {key!r} of its own", "give it to each node")
        entries = table["nodes"]
        if not isinstance(entries, list) or not entries or not all(isinstance(each, dict) for each in entries):
            self._fail((*at, "nodes"), "nodes are tables", f"write [[builders.{name}.nodes]] above each of them")
        nodes = tuple(self._numbered_node(entry, (*at, "nodes", number)) for number, entry in enumerate(entries))
        for number, node in enumerate(nodes):
            if node.name in {each.name for each in nodes[:number]}:
                self._fail((*at, "nodes", number), f"two nodes have the name {node.name!r}", "rename one of them")
        return Builder(name, nodes, cache, float(seconds))

    def _numbered_node(self, table: Mapping[str, Any], at: tuple[str | int, ...]) -> Node:
        self._known(table, at, "name", "address", "tls", "platforms", "labels", "weight", "max-builds")
        name = self._string(table, at, "name")
        if name is None or not _NAME.fullmatch(name):
            self._fail(at, "a node needs a name of letters, digits, dots and hyphens", 'write for example name = "a"')
        return self._node(table, at, name)

    def _node(self, table: Mapping[str, Any], at: tuple[str | int, ...], name: str) -> Node:
        from cogkit.buildkit.connect.address import Address

        address = self._string(table, at, "address")
        if address is None:
            self._fail(at, f"{name!r} has no address", 'write for example address = "tcp://build.example.com:1234"')
        try:
            Address.parse(address)
        except UsageError as error:
            self._fail((*at, "address"), error.message, error.hint)
        platforms = self._strings(table, at, "platforms")
        for platform in platforms:
            if not _PLATFORM.fullmatch(platform):
                self._fail((*at, "platforms"), f"{platform!r} is not a platform", "write for example linux/arm64")
        labels = self._table(table, at, "labels")
        for key, value in labels.items():
            if not isinstance(value, str):
                self._fail((*at, "labels", key), f"the label {key!r} is not text", "put it between quotes")
        weight = table.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= 1_000_000:
            self._fail((*at, "weight"), "weight is not a number above 0", "2 gives a node twice the builds of 1")
        return Node(
            name,
            address,
            self._tls(self._table(table, at, "tls"), (*at, "tls")),
            platforms,
            dict(labels),
            float(weight),
            self._count(table, at, "max-builds"),
        )

    def _tls(self, table: Mapping[str, Any], at: tuple[str | int, ...]) -> Any:
        from cogkit.buildkit.connect.address import TlsConfig

        self._known(table, at, *_TLS_FILES, "server-name")
        named = {key: self._string(table, at, key) for key in _TLS_FILES}
        files = {key: self._path.parent / Path(name).expanduser() for key, name in named.items() if name is not None}
        server_name = self._string(table, at, "server-name")
        if not files and server_name is None:
            return None
        return TlsConfig(**files, server_name=server_name)

    def _private(self, table: Mapping[str, Any]) -> PrivateSettings:
        self._known(table, ("private",), "idle-minutes", "max-used-space", "min-free-space")
        usual = PrivateSettings()
        minutes = table.get("idle-minutes", usual.idle_seconds / 60)
        if isinstance(minutes, bool) or not isinstance(minutes, int | float) or not 0 < minutes < 1e6:
            self._fail(("private", "idle-minutes"), "idle-minutes is not a number above 0", "write for example 30")
        spaces = {}
        for key, otherwise in (("max-used-space", usual.max_used_space), ("min-free-space", usual.min_free_space)):
            spaces[key] = self._string(table, ("private",), key) or otherwise
            if not _SPACE.fullmatch(spaces[key]):
                self._fail(("private", key), f"{spaces[key]!r} is not a size", 'write for example "30GB" or "20%"')
        return PrivateSettings(float(minutes) * 60, spaces["max-used-space"], spaces["min-free-space"])

    def _known(self, table: Mapping[str, Any], at: tuple[str | int, ...], *keys: str) -> None:
        for key in table:
            if key not in keys:
                self._fail((*at, key), f"the key {key!r} is not known here", f"known are {', '.join(keys)}")

    def _table(self, table: Mapping[str, Any], at: tuple[str | int, ...], key: str) -> Mapping[str, Any]:
        value = table.get(key, {})
        if not isinstance(value, dict):
            self._fail((*at, key), f"{key!r} is not a table", f"write [{'.'.join(map(str, (*at, key)))}]")
        return value

    def _string(self, table: Mapping[str, Any], at: tuple[str | int, ...], key: str) -> str | None:
        value = table.get(key)
        if value is not None and (not isinstance(value, str) or not value.strip()):
            self._fail((*at, key), f"{key!r} is not text", "put its value between quotes")
        return value

    def _strings(self, table: Mapping[str, Any], at: tuple[str | int, ...], key: str) -> tuple[str, ...]:
        value = table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self._fail((*at, key), f"{key!r} is not a list of texts", f'write for example {key} = ["linux/amd64"]')
        return tuple(value)

    def _count(self, table: Mapping[str, Any], at: tuple[str | int, ...], key: str) -> int | None:
        value = table.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            self._fail((*at, key), f"{key} is not a whole number above 0", "leave it out for no limit")
        return value

    def _fail(self, at: tuple[str | int, ...], message: str, hint: str | None) -> NoReturn:
        line = line_of(self._text, at)
        raise ConfigError(message, where=f"{self._path}:{line}" if line else str(self._path), hint=hint)


_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]]+?)\s*\]")
_ASSIGNMENT = re.compile(r"\s*([A-Za-z0-9_.\"'\s-]+?)\s*=")


def line_of(text: str, at: tuple[str | int, ...]) -> int | None:
    """The line, from 1, in which a key is set, or the nearest table that holds it begins; None if none is found.

    Numbers in ``at`` count the tables of an array.  Good for messages: multi-line strings are not understood.
    """
    header: tuple[str | int, ...] = ()
    counts: dict[tuple[str, ...], int] = {}
    best, depth = None, 0
    for number, line in enumerate(text.split("\n"), 1):
        found = _HEADER.match(line)
        if found:
            names = _dotted(found[2])
            header = tuple(names)
            if found[1] == "[[":
                counts[names] = counts.get(names, -1) + 1
            for length in range(1, len(names) + 1):
                if names[:length] in counts:
                    header = (*names[:length], counts[names[:length]], *names[length:])
            place = header
        elif assignment := _ASSIGNMENT.match(line):
            place = (*header, *_dotted(assignment[1]))
        else:
            continue
        if at[: len(place)] == place and len(place) > depth:
            best, depth = number, len(place)
    return best


def _dotted(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))


# ---------------------------------------------------------------------------------------------------------------- edits


def add_builder(name: str, entry: Mapping[str, Any], *, choose: bool = False) -> None:
    """Write a new builder into the list.

    Args:
        name: Its name.
        entry: Its table, as in the file.
        choose: Make it the chosen one.

    Raises:
        UsageError: the name is taken, or cannot be one, or the entry makes no sense.
        ConfigError: the list cannot be read.
        CogkitError: it cannot be written.
    """
    if not _NAME.fullmatch(name) or name in RESERVED_NAMES:
        raise UsageError(f"{name!r} cannot be a builder's name", hint=_name_hint(name))

    def edit(document: MutableMapping[str, Any]) -> None:
        tables = _tables(document)
        if name in tables:
            raise UsageError(
                f"there is a builder {name!r} already", hint=f"remove it first with `cogkit builder rm {name}`"
            )
        tables[name] = dict(entry)
        if choose:
            _choose(document, name)

    _edit(edit)


def add_node(name: str, node: Mapping[str, Any]) -> None:
    """Make a builder of the list a farm with one more node.

    Raises:
        UsageError: there is no such builder, or its node has that name already.
        ConfigError, CogkitError: see `add_builder`.
    """

    def edit(document: MutableMapping[str, Any]) -> None:
        table = _existing(document, name)
        if "nodes" not in table:
            own = {key: table.pop(key) for key in list(table) if key not in ("cache", "answer-seconds")}
            table["nodes"] = [{"name": "first", **own}]
        if node.get("name") in {each.get("name") for each in table["nodes"]}:
            raise UsageError(
                f"the builder {name!r} has a node {node['name']!r} already", hint="give it another name with --node"
            )
        # tomlkit appends to the document's own array only when it is assigned anew.
        table["nodes"] = [*(dict(each) for each in table["nodes"]), dict(node)]

    _edit(edit)


def remove_builder(name: str) -> None:
    """Take a builder out of the list; if it was the chosen one, none is.

    Raises:
        UsageError: there is no such builder.
        ConfigError, CogkitError: see `add_builder`.
    """

    def edit(document: MutableMapping[str, Any]) -> None:
        _existing(document, name)
        del document["builders"][name]
        if document.get("current") == name:
            del document["current"]

    _edit(edit)


def choose_builder(name: str) -> None:
    """Make a builder the one that builds go to; `DEFAULT` makes none so.

    Raises:
        UsageError: there is no such builder.
        ConfigError, CogkitError: see `add_builder`.
    """

    def edit(document: MutableMapping[str, Any]) -> None:
        if name == DEFAULT:
            document.pop("current", None)
            return
        if name != PRIVATE:
            _existing(document, name)
        _choose(document, name)

    _edit(edit)


def unknown_builder(name: str, known: Mapping[str, Any]) -> UsageError:
    """There is no builder of that name."""
    names = ", ".join((*known, PRIVATE))
    return UsageError(
        f"there is no builder {name!r}", hint=f"known are {names}; `cogkit builder create` makes a new one"
    )


def _tables(document: MutableMapping[str, Any]) -> Any:
    if "builders" not in document:
        import tomlkit

        document["builders"] = tomlkit.table(is_super_table=True)
    return document["builders"]


def _existing(document: MutableMapping[str, Any], name: str) -> Any:
    tables = document.get("builders", {})
    if name not in tables:
        raise unknown_builder(name, tables)
    return tables[name]


def _choose(document: MutableMapping[str, Any], name: str) -> None:
    if "current" in document:
        document["current"] = name
        return
    # A plain key belongs above the first table.
    rest = dict(document)
    for key in rest:
        del document[key]
    document["current"] = name
    for key, value in rest.items():
        document[key] = value


def _edit(change: Callable[[MutableMapping[str, Any]], None]) -> None:
    import tomlkit

    from cogkit.atomic_file import replace_whole

    # Of a list that is a link, kept with other settings elsewhere, the file itself is replaced.
    path = Path(config_path()).resolve()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            parse_builders(text, path)
            document = tomlkit.parse(text)
            change(document)
            new = tomlkit.dumps(document)
            try:
                parse_builders(new, path)
            except ConfigError as error:
                raise UsageError(error.message, hint=error.hint) from error
            replace_whole(path, new.encode(), 0o600)
    except UnicodeDecodeError as error:
        raise ConfigError("the list of builders is not UTF-8 text", where=str(path)) from error
    except OSError as error:
        raise CogkitError(
            f"the list of builders cannot be written: {error.strerror or error}",
            where=str(path),
            hint="check the folder and its permissions",
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One edit at a time; the kernel lets go of the lock when its holder ends."""
    from cogkit.builders.supervisor import locked

    with locked(path, patience=_LOCK_SECONDS) as held:
        if not held:
            raise LockNotAcquiredError("another process is changing the list of builders", where=str(path))
        yield


def _name_hint(name: str) -> str:
    if name in RESERVED_NAMES:
        return f"{PRIVATE} is the builder that cogkit starts itself, {DEFAULT} stands for no choice; take another name"
    return "a name begins with a letter or digit, and has letters, digits, dots, hyphens and underscores"
