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
from cogkit.project.schema.names import (
    FUNCTIONS,
    FunctionNode,
    Import,
    Names,
    Position,
    block_names,
    changed_names,
    class_names,
    dotted_name,
    statements,
)

EXTERNAL_MODULES = frozenset(
    {"builtins", "cog", "collections", "dataclasses", "pathlib", "pydantic", "typing", "typing_extensions"}
)
"""Modules whose names have a meaning of their own in a schema: never looked for in the project."""


@dataclass(frozen=True, slots=True, eq=False)
class Class:
    """A class of the project, with the module that its annotations are read in."""

    module: Module
    node: ast.ClassDef


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a name stands for: an expression, a class or a function of the project.

    Attributes:
        module: Where it stands.
        node: It.
        start: Where the statement that binds it begins; an expression may use what is bound before.
        owner: The class whose body it stands in.
    """

    module: Module
    node: ast.expr | ast.ClassDef | FunctionNode
    start: Position
    owner: Class | None = None


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
    names: Names = field(default_factory=Names, repr=False)
    _changed: frozenset[str] | None = field(default=None, repr=False)

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

    @property
    def changed(self) -> frozenset[str]:
        """The names of the module whose values change after they are bound; see `names.changed_names`."""
        if self._changed is None:
            self._changed = changed_names(self.tree)
        return self._changed

    def find(self, dotted: str, before: Position | None = None) -> Found | None:
        """What a name of this module means, followed through imports; None if that is not in the project's source.

        Args:
            dotted: The name as it is written, with attributes of modules perhaps.
            before: Only what is bound before that place counts; for code that runs later, and for other modules, all.
        """
        return self._find(dotted, before, set())

    def _find(self, dotted: str, before: Position | None, seen: set[tuple[str, str]]) -> Found | None:
        if (self.path, dotted) in seen:
            return None
        seen.add((self.path, dotted))
        head, _, rest = dotted.partition(".")
        if head in self.changed:
            return None
        binding = self.names.last(head, before)
        after = binding.end if binding is not None else None
        for star in self.names.stars_between(after, before):
            assert isinstance(star.what, Import)
            module = self.project.module(star.what.module, self)
            if module is None:
                return None  # what an installed module exports is not known
            if module.exports(head):
                found = module._find(dotted, None, seen)
                if found is not None:
                    return found
        if binding is None or binding.what is None:
            return None
        if isinstance(binding.what, Import):
            origin = binding.what
            return self._follow(origin.module, ".".join(part for part in (origin.name, rest) if part), seen)
        if isinstance(binding.what, ast.ClassDef) and rest:
            return _attribute(Class(self, binding.what), rest)
        return Found(self, binding.what, binding.start) if not rest else None

    def _follow(self, module_name: str, dotted: str, seen: set[tuple[str, str]]) -> Found | None:
        """A name in a module of the project, or in one of its submodules."""
        module = self.project.module(module_name, self)
        if not dotted:
            return None
        if module is not None:
            found = module._find(dotted, None, seen)
            if found is not None:
                return found
        head, _, rest = dotted.partition(".")
        binding = module.names.last(head, None) if module is not None else None
        # ``from . import x`` in a package's own file names its submodule.
        if not rest or (binding is not None and not isinstance(binding.what, Import)):
            return None
        return self._follow(_join(module_name, head), rest, seen)

    def exports(self, name: str) -> bool:
        """Whether ``import *`` takes a name; without a plain ``__all__`` all that do not begin with an underscore."""
        binding = self.names.last("__all__", None)
        if binding is None:
            return not name.startswith("_")
        if isinstance(binding.what, ast.List | ast.Tuple) and "__all__" not in self.changed:
            return any(isinstance(one, ast.Constant) and one.value == name for one in binding.what.elts)
        return False

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
        if prefix:
            module = self._imported_module(prefix)
            return module._find_class(rest, seen) if module is not None else None
        for star in self.names.stars_between(None, None):
            assert isinstance(star.what, Import)
            module = self.project.module(star.what.module, self)
            found = module._find_class(dotted, seen) if module is not None and module.exports(dotted) else None
            if found is not None:
                return found
        return None

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

        It is ``a/b/__init__.py`` if there is such a package, else ``a/b.py``.  An absolute name starts at the project's
        folder, a relative one at the importer's.

        Raises:
            ConfigError: The file is there but cannot be parsed.
        """
        if name.partition(".")[0] in EXTERNAL_MODULES:
            return None
        path = _module_path(name, importer.path)
        for key in (f"{path}/__init__.py", f"{path}.py") if path else ("__init__.py",):
            if key not in self._modules:
                self._modules[key] = None
                if self._is_inside(key):
                    self._modules[key] = self._parse(key, self._read(key, None))
            if self._modules[key] is not None:
                return self._modules[key]
        return None

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
    """The path of a module without its ending, relative to the project; "" for the project's folder itself."""
    bare = name.lstrip(".")
    parts = bare.split(".") if bare else []
    folder = PurePosixPath(".")
    if name.startswith("."):
        folder = PurePosixPath(importer).parent
        for _ in range(len(name) - len(bare) - 1):
            folder = folder.parent
    path = (folder / PurePosixPath(*parts)).as_posix()
    return "" if path == "." else path


def _join(module: str, name: str) -> str:
    return f"{module}{name}" if module.endswith(".") else f"{module}.{name}"


def _attribute(cls: Class, dotted: str) -> Found | None:
    """A constant of a class or of a class of the project that it inherits from."""
    name, _, rest = dotted.partition(".")
    for owner in lineage(cls):
        binding = class_names(owner.node).last(name, None)
        if binding is None:
            continue
        if binding.what is None or isinstance(binding.what, Import) or cls.node.name in owner.module.changed:
            return None
        if isinstance(binding.what, ast.ClassDef) and rest:
            return _attribute(Class(owner.module, binding.what), rest)
        return Found(owner.module, binding.what, binding.start, owner) if not rest else None
    return None


def lineage(cls: Class) -> Iterator[Class]:
    """The class and those of the project that it inherits from, depth first."""
    yield from _lineage(cls, set())


def _lineage(cls: Class, seen: set[ast.ClassDef]) -> Iterator[Class]:
    if cls.node in seen:
        return
    seen.add(cls.node)
    yield cls
    for base in cls.node.bases:
        name = dotted_name(base.value if isinstance(base, ast.Subscript) else base)
        parent = cls.module.find_class(name) if name is not None else None
        if parent is not None:
            yield from _lineage(parent, seen)


def _index(module: Module) -> None:
    """Fill in what the module imports, defines and assigns; the last binding of a name counts, as in Python."""
    module.names = block_names(module.tree.body)
    for statement, _ in statements(module.tree.body):
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
        elif isinstance(statement, FUNCTIONS):
            module.functions[statement.name] = statement
