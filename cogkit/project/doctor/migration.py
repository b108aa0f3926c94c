"""From ``predict:``, `Predictor` and ``predict()`` to ``run:``, `Runner` and ``run()``: Cog's new names.

Facts are from Cog (``pkg/doctor/check_predict_to_run_migration.go``).  Only the shape that ``cog init`` used to write
is migrated, and only if nothing else of the project uses the old names.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator

from cogkit.errors import OutputError
from cogkit.project.doctor.edits import Edit, PythonText, create_file, replace_file
from cogkit.project.doctor.findings import CannotFixError, Finding, Severity
from cogkit.project.doctor.python_checks import methods_of, top_level
from cogkit.project.doctor.sources import ProjectSources

OLD_FILE, NEW_FILE = "predict.py", "run.py"
OLD_CLASS, NEW_CLASS = "Predictor", "Runner"
OLD_BASE, NEW_BASE = "BasePredictor", "BaseRunner"
COG_MODULES = ("cog", "cog.predictor")

_PREDICT_KEY = re.compile(rb"(?m)^predict[ \t]*:")
_RUN_KEY = re.compile(rb"(?m)^run[ \t]*:")
_REFERENCE = re.compile(rb"(?m)^predict:[ \t]*([\"']?)predict\.py:Predictor\1(?=[ \t]*(?:#.*)?\r?$)")
_IMPORTS_PREDICT = re.compile(rb"(?m)^[ \t]*(?:from|import)[ \t]+\.?predict\b")
_MANUAL = "Manual migration required:"
_NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
_SKIPPED_FOLDERS = frozenset({".cog", ".git", ".venv", "venv", "node_modules", "__pycache__"})


def find_predict_names(project: ProjectSources) -> list[Finding]:
    findings: list[Finding] = []
    if _PREDICT_KEY.search(project.config_data):
        findings.append(
            Finding(
                Severity.WARNING,
                "predict in cog.yaml is deprecated; use run with run.py:Runner",
                "Run cogkit doctor --fix to migrate predict: to run:",
                project.filename,
            )
        )
    source = project.source(OLD_FILE)
    has_old_class = any(isinstance(node, ast.ClassDef) and node.name == OLD_CLASS for node in top_level(source))
    if has_old_class and _REFERENCE.search(project.config_data):
        findings.append(
            Finding(
                Severity.WARNING,
                "predict.py uses deprecated Predictor/BasePredictor/predict() names",
                "Run cogkit doctor --fix to migrate to Runner/BaseRunner/run()",
                OLD_FILE,
            )
        )
    return findings


def fix_predict_names(project: ProjectSources) -> None:
    """Write ``run.py``, let ``cog.yaml`` name it, remove ``predict.py``: at every step the project is whole.

    Raises:
        CannotFixError: the project is of another shape, or uses the old names elsewhere.
    """
    if _RUN_KEY.search(project.config_data):
        raise CannotFixError("automatic migration cannot run when run is already set")
    if not _REFERENCE.search(project.config_data):
        raise CannotFixError(f"{_MANUAL} automatic migration only supports predict.py:Predictor")
    if os.path.lexists(project.root / NEW_FILE):
        raise CannotFixError("cannot migrate predict.py to run.py because run.py already exists")
    source = project.source(OLD_FILE)
    if source is None or source.tree is None:
        raise CannotFixError("cannot migrate predict.py to run.py because predict.py was not found")
    _refuse_users(project)
    text = PythonText(OLD_FILE, source.data)
    migrated = text.changed(_edits(text))
    config = _REFERENCE.sub(b'run: "run.py:Runner"', project.config_data)
    old = project.root / OLD_FILE
    if old.is_symlink():
        raise CannotFixError(f"{_MANUAL} predict.py is a link")
    create_file(project.root / NEW_FILE, migrated, old.stat().st_mode & 0o777)
    try:
        replace_file(project.root / project.filename, project.config_data, config)
    except BaseException:
        (project.root / NEW_FILE).unlink()
        raise
    try:
        if old.read_bytes() == source.data:
            old.unlink()
    except OSError as problem:
        raise OutputError(f"cannot remove it: {problem.strerror}", where=str(old)) from problem


def _refuse_users(project: ProjectSources) -> None:
    for folder, folders, names in os.walk(project.root):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        for name in names:
            path = os.path.join(folder, name)
            if not name.endswith((".py", ".ipynb")) or path == str(project.root / OLD_FILE):
                continue
            try:
                with open(path, "rb") as file:
                    uses = _IMPORTS_PREDICT.search(file.read())
            except OSError:
                continue
            if uses:
                raise CannotFixError(f"{_MANUAL} {os.path.relpath(path, project.root)} imports predict")


def _edits(text: PythonText) -> list[Edit]:
    tree = text.tree
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == OLD_CLASS]
    if len(classes) != 1:
        raise CannotFixError(f"{_MANUAL} automatic migration only supports a single Predictor class")
    (node,) = classes
    methods = methods_of(node, "predict")
    if len(methods) != 1 or methods_of(node, "run"):
        raise CannotFixError(
            f"{_MANUAL} automatic migration only supports a single Predictor class with a single predict method"
        )
    _refuse_other_uses(tree)
    renamed = [
        text.replace(each, NEW_CLASS) for each in ast.walk(tree) if isinstance(each, ast.Name) and each.id == OLD_CLASS
    ]
    return [
        _renamed(text, node, rb"class\s+", OLD_CLASS, NEW_CLASS),
        _renamed(text, methods[0], rb"(?:async\s+)?def\s+", "predict", "run"),
        *renamed,
        *_base_edits(text, node),
    ]


def _refuse_other_uses(tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "predict" and _is_self(node.value):
            raise CannotFixError(f"{_MANUAL} line {node.lineno} of predict.py calls predict()")
        is_named_so = (isinstance(node, _NAMED) and node.name == NEW_CLASS) or (
            isinstance(node, ast.Name) and node.id == NEW_CLASS
        )
        if is_named_so:
            raise CannotFixError(f"{_MANUAL} predict.py uses the name Runner already")


def _is_self(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("super", OLD_CLASS)
    return isinstance(node, ast.Name) and node.id in ("self", OLD_CLASS)


def _base_edits(text: PythonText, node: ast.ClassDef) -> list[Edit]:
    imports = list(_imports_of_base(text.tree))
    aliases = {alias.asname for _, alias in imports if alias.asname}
    if any(isinstance(base, ast.Name) and base.id in aliases for base in node.bases):
        raise CannotFixError(f"{_MANUAL} automatic migration does not support aliased BasePredictor inheritance")
    bases = [base for base in node.bases if isinstance(base, ast.Name) and base.id == OLD_BASE]
    if not bases:
        return []
    if not imports:
        raise CannotFixError(f"{_MANUAL} automatic migration only supports BasePredictor imported from cog")
    if any(imported.module not in COG_MODULES for imported, _ in imports):
        raise CannotFixError(f"{_MANUAL} automatic migration only supports unambiguous BasePredictor imports from cog")
    ours = {id(base) for base in bases}
    used_elsewhere = any(
        isinstance(each, ast.Name) and each.id == OLD_BASE and id(each) not in ours for each in ast.walk(text.tree)
    )
    edits = [text.replace(base, NEW_BASE) for base in bases]
    for _, alias in imports:
        edits.append(text.replace(alias, f"{OLD_BASE}, {NEW_BASE}" if used_elsewhere else NEW_BASE))
    return edits


def _imports_of_base(tree: ast.Module) -> Iterator[tuple[ast.ImportFrom, ast.alias]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name == OLD_BASE:
                    yield node, alias


def _renamed(
    text: PythonText, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, before: bytes, old: str, new: str
) -> Edit:
    match = re.compile(before + old.encode() + rb"\b").match(text.data, text.start(node))
    if match is None:
        raise CannotFixError(f"{_MANUAL} line {node.lineno} of predict.py is written in an unusual way")
    return Edit(match.end() - len(old), match.end(), new.encode())
