"""The project's Python files as syntax trees: what they import, define and assign, and where.

`Project` reads and parses files, each once, and finds the file behind an import.  A file that is not in the project
folder (an installed package, a symlink that leads out of it) does not exist here.  Nothing is ever imported or
executed: this file must not do more with a source than `grammar.parse`.
"""

from __future__ import annotations

import ast
import os
import stat
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path, PurePosixPath

from cogkit.errors import ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.schema import grammar

EXTERNAL_MODULES = frozenset(
    {"builtins", "cog", "collections", "dataclasses", "pathlib", "pydantic", "typing", "typing_extensions"}
)
"""Modules whose names have a meaning of their own in a schema: never looked for in the project."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Import:
    """Where a name comes from.

    Attributes:
        module: The module, with its leading dots if it is relative.
        name: The name in that module, or "" if the name is the module itself.
    """

    module: str
    name: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Class:
    """A class of the project, with the module that its annotations are read in."""

    module: Module
    node: ast.ClassDef


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a module-level name is bound to; ``value`` is None if that cannot be known without running the code."""

    value: ast.expr | None


@dataclass(slots=True, eq=False)
class Module:
    """One parsed file.  ``path`` is relative to the project, with slashes; ``source`` is in UTF-8."""

    project: Project = field(repr=False)
    path: str
    source: bytes = field(repr=False)
    tree: ast.Module = field(repr=False)
    imports: dict[str, Import] = field(default_factory=dict)
    classes: dict[str, ast.ClassDef] = field(default_factory=dict)
    functions: dict[str, FunctionNode] = field(default_factory=dict)
    assignments: dict[str, Assignment] = field(default_factory=dict)

    def where(self, node: ast.AST) -> str:
        """``file:line:column`` of a node, the column counted in characters from 1."""
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        before = self._line(line)[:offset].decode("utf-8", "replace")
        return f"{self.path}:{line}:{len(before) + 1}"

    def text(self, node: ast.AST) -> str:
        """The node's source on one line."""
        text = ast.get_source_segment(self.source.decode("utf-8", "replace"), node) or ""
        return " ".join(text.split())

    def error(self, message: str, node: ast.AST, hint: str | None = None) -> ConfigError:
        """A `ConfigError` at the node, showing its line."""
        line, offset = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        raw = self._line(line)
        shown = raw.decode("utf-8", "replace").rstrip()
        column = len(raw[:offset].decode("utf-8", "replace"))
        marker = "".join(character if character == "\t" else " " for character in shown[:column]) + "^"
        gutter = f"{line:>4} | "
        detail = f"{gutter}{shown}\n{' ' * (len(gutter) - 2)}| {marker}"
        return ConfigError(message, where=self.where(node), hint=hint, detail=detail)

    def _line(self, number: int) -> bytes:
        lines = self.source.splitlines()
        return lines[number - 1] if 0 < number <= len(lines) else b""

    def find_class(self, dotted: str) -> Class | None:
        """The class of the project that a name, as written in this module, means."""
        return self._find_class(dotted, set())

    def _find_class(self, dotted: str, seen: set[tuple[str, str]]) -> Class | None:
        if (self.path, dotted) in seen:
            return None
        seen.add((self.path, dotted))
        if dotted in self.classes:
            return Class(self, self.classes[dotted])
        if dotted in self.imports:
            origin = self.imports[dotted]
            module = self.project.module(origin.module, self) if origin.name else None
            return module._find_class(origin.name, seen) if module is not None else None
        prefix, _, rest = dotted.rpartition(".")
        if not prefix:
            return None
        module = self._imported_module(prefix)
        return module._find_class(rest, seen) if module is not None else None

    def _imported_module(self, dotted: str) -> Module | None:
        head, _, rest = dotted.partition(".")
        origin = self.imports.get(dotted)
        if origin is None:
            origin = self.imports.get(head)
            if origin is None or not rest:
                return None
            base = origin.module if not origin.name else _join(origin.module, origin.name)
            return self.project.module(f"{base}.{rest}", self)
        return self.project.module(_join(origin.module, origin.name) if origin.name else origin.module, self)

    def origin(self, dotted: str) -> Import | None:
        """What an imported name, or the imported name that a dotted one starts with, stands for."""
        if dotted in self.imports:
            return self.imports[dotted]
        head, _, rest = dotted.partition(".")
        entry = self.imports.get(head)
        if entry is None or not rest:
            return None
        owner, _, name = rest.rpartition(".")
        base = _join(entry.module, entry.name) if entry.name else entry.module
        return Import(_join(base, owner) if owner else base, name)


@dataclass(slots=True)
class Project:
    """The files under one folder, parsed at most once each by the grammar of the image's ``python_version``."""

    root: Path
    python_version: str = ""
    _modules: dict[str, Module | None] = field(default_factory=dict, repr=False)

    def open(self, path: str, where: str | None = None) -> Module:
        """Parse the file at ``path``, relative to the project.

        Args:
            path: The file, as the user wrote it.
            where: What to blame if it cannot be read.

        Raises:
            ConfigError: It is outside of the project, cannot be read, or is not Python that the image knows.
        """
        clean = os.path.normpath(path)
        if os.path.isabs(clean) or clean == ".." or clean.startswith("../"):
            raise ConfigError(
                f"{path} is outside of the project",
                where=where,
                hint=f"Name a Python file under {self.root}, relative to it.",
            )
        key = PurePosixPath(clean).as_posix()
        if self._modules.get(key) is None:
            self._modules[key] = self._parse(key, self._read(key, where))
        module = self._modules[key]
        assert module is not None
        return module

    def module(self, name: str, importer: Module) -> Module | None:
        """The project's file behind a module's name as ``importer`` writes it; None if it is not in the project.

        Like Cog, only ``a/b.py`` is looked for, never ``a/b/__init__.py``; an absolute name starts at the project's
        folder, a relative one at the importer's.

        Raises:
            ConfigError: The file is there but cannot be parsed.
        """
        key = _module_path(name, importer.path)
        if not key or name.partition(".")[0] in EXTERNAL_MODULES:
            return None
        if key not in self._modules:
            self._modules[key] = None
            if self._is_inside(key):
                self._modules[key] = self._parse(key, self._read(key, None))
        return self._modules[key]

    def _is_inside(self, key: str) -> bool:
        try:
            real = (self.root / key).resolve(strict=True)
        except (OSError, RuntimeError):
            return False
        return real.is_file() and real.is_relative_to(self.root.resolve())

    def _read(self, key: str, where: str | None) -> bytes:
        path = self.root / key
        try:
            mode = path.stat().st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"{key} is not a file", where=where, hint="Name a Python file.")
            if not self._is_inside(key):
                raise ConfigError(
                    f"{key} is a link out of the project, so it would not be in the image",
                    where=where,
                    hint="Put the file itself into the project.",
                )
            return path.read_bytes()
        except FileNotFoundError as error:
            raise ConfigError(
                f"{key} not found in {self.root}", where=where, hint="Name a Python file of the project."
            ) from error
        except OSError as error:
            raise ConfigError(f"cannot read {key}: {error.strerror}", where=where) from error

    def _parse(self, key: str, raw: bytes) -> Module:
        source = grammar.parse(raw, key, self.python_version)
        module = Module(self, key, source.data, source.tree)
        _index(module)
        return module


def _module_path(name: str, importer: str) -> str:
    """The path of a module, relative to the project; "" for a package itself (``from . import x`` names none)."""
    bare = name.lstrip(".")
    if not bare:
        return ""
    parts = bare.split(".")
    if name.startswith("."):
        folder = PurePosixPath(importer).parent
        for _ in range(len(name) - len(bare) - 1):
            folder = folder.parent
        return (folder / PurePosixPath(*parts)).as_posix() + ".py"
    return PurePosixPath(*parts).as_posix() + ".py"


def _join(module: str, name: str) -> str:
    return f"{module}{name}" if module.endswith(".") else f"{module}.{name}"


def _statements(body: list[ast.stmt], certain: bool = True) -> Iterator[tuple[ast.stmt, bool]]:
    """The statements that run when a module is imported, and whether they surely do."""
    for statement in body:
        yield statement, certain
        blocks: list[list[ast.stmt]] = []
        if isinstance(statement, ast.If | ast.For | ast.While):
            blocks = [statement.body, statement.orelse]
        elif isinstance(statement, ast.Try | ast.TryStar):
            handlers = [handler.body for handler in statement.handlers]
            blocks = [*handlers, statement.body, statement.orelse, statement.finalbody]
        elif isinstance(statement, ast.With):
            blocks = [statement.body]
        for block in blocks:
            yield from _statements(block, False)


def _index(module: Module) -> None:
    """Fill in what the module imports, defines and assigns; the last binding of a name counts, as in Python."""
    for statement, certain in _statements(module.tree.body):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                module.imports[alias.asname or alias.name] = Import(alias.name)
        elif isinstance(statement, ast.ImportFrom):
            source = "." * statement.level + (statement.module or "")
            for alias in statement.names:
                if alias.name != "*":
                    module.imports[alias.asname or alias.name] = Import(source, alias.name)
        elif isinstance(statement, ast.ClassDef):
            module.classes[statement.name] = statement
        elif isinstance(statement, _FUNCTIONS):
            module.functions[statement.name] = statement
        else:
            for name, value in _bindings(statement):
                module.assignments[name] = Assignment(value if certain else None)


def _bindings(statement: ast.stmt) -> Iterator[tuple[str, ast.expr | None]]:
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, statement.value
            else:
                yield from ((name.id, None) for name in ast.walk(target) if isinstance(name, ast.Name))
    elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
        yield statement.target.id, statement.value
    elif isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        yield statement.target.id, None
    elif isinstance(statement, ast.Delete | ast.For):
        targets = statement.targets if isinstance(statement, ast.Delete) else [statement.target]
        for target in targets:
            yield from ((name.id, None) for name in ast.walk(target) if isinstance(name, ast.Name))
