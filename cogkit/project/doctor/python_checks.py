"""The checks of Python sources, and their fixes.

Facts on what is wrong are from Cog (``pkg/doctor/check_python_*.go``); its fixes remove every statement that mentions a
name, these refuse where more than the finding would change.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from cogkit.fast_dataclass import dataclass
from cogkit.project.doctor.edits import Edit, PythonText, replace_file
from cogkit.project.doctor.findings import CannotFixError, Check, Finding, Group, Severity
from cogkit.project.doctor.sources import ProjectSources, PythonSource, reference_parts

DEPRECATED_IMPORTS = {
    ("cog.types", "ExperimentalFeatureWarning"): (
        "ExperimentalFeatureWarning was removed in cog 0.17; current_scope().record_metric() is no longer experimental"
    ),
}

_PYDANTIC = "pydantic"
_ARBITRARY = "arbitrary_types_allowed"

# ---- deprecated imports


def find_deprecated_imports(project: ProjectSources) -> list[Finding]:
    return [
        Finding(
            Severity.ERROR,
            DEPRECATED_IMPORTS[module, alias.name],
            f"Remove the import of {alias.name} from {module}",
            f"{source.path}:{node.lineno}",
        )
        for source in project.python
        for node, module, alias in _deprecated(source.tree)
    ]


def fix_deprecated_imports(project: ProjectSources) -> None:
    """Remove the imports, and calls at the top of the file that are about the removed names alone.

    Raises:
        CannotFixError: a name is used otherwise.
    """
    changes = [(source, _without_deprecated(source)) for source in project.python if _has_deprecated(source)]
    for source, data in changes:
        replace_file(project.root / source.path, source.data, data)


def _deprecated(tree: ast.Module | None) -> Iterator[tuple[ast.ImportFrom, str, ast.alias]]:
    for node in tree.body if tree else ():
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                if (node.module, alias.name) in DEPRECATED_IMPORTS:
                    yield node, node.module, alias


def _has_deprecated(source: PythonSource) -> bool:
    return next(_deprecated(source.tree), None) is not None


def _without_deprecated(source: PythonSource) -> bytes:
    text = PythonText(source.path, source.data)
    found = list(_deprecated(text.tree))
    names = {alias.asname or alias.name for _, _, alias in found}
    going: list[ast.stmt] = []
    for statement in text.tree.body:
        used = names & _names_in(statement)
        if not used or isinstance(statement, ast.ImportFrom):
            continue
        if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)):
            raise CannotFixError(
                f"{source.path}:{statement.lineno} uses {', '.join(sorted(used))} for more than a call: "
                "Manual change required"
            )
        going.append(statement)
    edits = [text.remove_statement(statement) for statement in going]
    for node in {id(node): node for node, _, _ in found}.values():
        edits += _as_list(text.remove_names(node, [alias.name for each, _, alias in found if each is node]))
    edits += _orphans(text, going)
    return text.changed(edits)


def _orphans(text: PythonText, going: list[ast.stmt]) -> list[Edit]:
    """Removes ``import x`` where only the statements that go used ``x``."""
    used_by_going = set[str]().union(*(_names_in(statement) for statement in going))
    staying = [node for node in text.tree.body if node not in going and not isinstance(node, ast.Import)]
    used_by_staying = set[str]().union(*(_names_in(statement) for statement in staying))
    return [
        text.remove_statement(node)
        for node in text.tree.body
        if isinstance(node, ast.Import)
        and len(node.names) == 1
        and (name := (node.names[0].asname or node.names[0].name).partition(".")[0]) in used_by_going
        and name not in used_by_staying
    ]


# ---- pydantic


@dataclass(frozen=True, slots=True)
class _Pydantic:
    """A class that takes pydantic's BaseModel where Cog's is meant."""

    node: ast.ClassDef
    base: ast.expr
    config: ast.Assign
    call: ast.Call


def find_pydantic_workarounds(project: ProjectSources) -> list[Finding]:
    return [
        Finding(
            Severity.ERROR,
            f"{found.node.name} inherits from pydantic.BaseModel with {_ARBITRARY}; use cog.BaseModel instead",
            f"Replace pydantic.BaseModel with cog.BaseModel and remove ConfigDict({_ARBITRARY}=True)",
            f"{source.path}:{found.node.lineno}",
        )
        for source in project.python
        if source.tree
        for found in _workarounds(source.tree)
    ]


def fix_pydantic_workarounds(project: ProjectSources) -> None:
    """Let the classes inherit from cog.BaseModel.

    Raises:
        CannotFixError: a class uses more of pydantic than its BaseModel.
    """
    changes = [
        (source, _with_cog_base_model(source))
        for source in project.python
        if source.tree and any(True for _ in _workarounds(source.tree))
    ]
    for source, data in changes:
        replace_file(project.root / source.path, source.data, data)


def _workarounds(tree: ast.Module) -> Iterator[_Pydantic]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        base = next((base for base in node.bases if _is_pydantic(tree, base, "BaseModel")), None)
        config = next((found for statement in node.body if (found := _allows_arbitrary(statement))), None)
        if base is not None and config is not None:
            yield _Pydantic(node, base, *config)


def _is_pydantic(tree: ast.Module, expression: ast.expr, name: str) -> bool:
    """Whether an expression is ``name`` of pydantic, however it was imported."""
    if isinstance(expression, ast.Attribute):
        return expression.attr == name and isinstance(expression.value, ast.Name) and expression.value.id == _PYDANTIC
    return isinstance(expression, ast.Name) and any(
        (alias.asname or alias.name) == expression.id and alias.name == name
        for node in _imports_from(tree, _PYDANTIC)
        for alias in node.names
    )


def _imports_from(tree: ast.Module, *modules: str) -> list[ast.ImportFrom]:
    return [
        node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module in modules and node.level == 0
    ]


def _allows_arbitrary(statement: ast.stmt) -> tuple[ast.Assign, ast.Call] | None:
    if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)):
        return None
    (target, *_) = statement.targets
    if not (isinstance(target, ast.Name) and target.id == "model_config"):
        return None
    for keyword in statement.value.keywords:
        if keyword.arg == _ARBITRARY and isinstance(keyword.value, ast.Constant) and keyword.value.value is True:
            return statement, statement.value
    return None


def _with_cog_base_model(source: PythonSource) -> bytes:
    text = PythonText(source.path, source.data)
    tree = text.tree
    found = list(_workarounds(tree))
    _refuse_more_pydantic(source, tree, found)
    gone = {id(node) for each in found for node in (*ast.walk(each.base), *ast.walk(each.config))}
    left = _names_in(tree, without=gone)
    local = {alias.name: alias.asname or alias.name for node in _imports_from(tree, _PYDANTIC) for alias in node.names}
    name = "CogBaseModel" if local.get("BaseModel") == "BaseModel" and "BaseModel" in left else "BaseModel"
    edits: list[Edit] = []
    for each in found:
        edits += [text.replace(each.base, name), text.remove_statement(each.config)]
        if len(each.node.body) == 1:
            raise CannotFixError(f"{source.path}: nothing would be left of class {each.node.name}")
    for node in _imports_from(tree, _PYDANTIC):
        unused = [
            alias.name
            for alias in node.names
            if alias.name in ("BaseModel", "ConfigDict") and (alias.asname or alias.name) not in left
        ]
        edits += _as_list(text.remove_names(node, unused)) if unused else []
    if _PYDANTIC not in left:
        edits += [
            text.remove_statement(node)
            for node in tree.body
            if isinstance(node, ast.Import) and [alias.name for alias in node.names] == [_PYDANTIC]
        ]
    return text.changed([*edits, *_import_of_cog(text, "BaseModel", name)])


def _refuse_more_pydantic(source: PythonSource, tree: ast.Module, found: list[_Pydantic]) -> None:
    """cog.BaseModel has neither pydantic's other settings nor its fields and validators."""
    imported = {
        alias.asname or alias.name
        for node in _imports_from(tree, _PYDANTIC)
        for alias in node.names
        if alias.name not in ("BaseModel", "ConfigDict")
    } | {_PYDANTIC}
    for each in found:
        expected = {id(node) for node in (*ast.walk(each.base), *ast.walk(each.call.func))}
        used = _names_in(each.node, without=expected) & imported
        if used or len(each.call.keywords) > 1 or each.call.args:
            raise CannotFixError(
                f"{source.path}: class {each.node.name} uses more of pydantic than {_ARBITRARY}: Manual change required"
            )


def _import_of_cog(text: PythonText, name: str, local: str) -> list[Edit]:
    """Have ``name`` of cog under a local name."""
    wanted = name if name == local else f"{name} as {local}"
    for node in _imports_from(text.tree, "cog"):
        if any((alias.asname or alias.name) == local for alias in node.names):
            return []
        if node.names[0].name != "*":
            end = text.end(node.names[-1])
            return [Edit(end, end, f", {wanted}".encode())]
    at = 0
    for statement in text.tree.body:
        is_docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        is_future = isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        if not is_docstring and not is_future:
            break
        at = text.line_after(statement)
    return [Edit(at, at, f"from cog import {wanted}\n".encode())]


# ---- annotations


def find_missing_annotations(project: ProjectSources) -> list[Finding]:
    if project.config is None:
        return []
    findings: list[Finding] = []
    for reference, methods in ((project.config.run, ("run", "predict")), (project.config.train, ("train",))):
        path, name = reference_parts(reference)
        source = project.source(path)
        classes = [node for node in top_level(source) if isinstance(node, ast.ClassDef) and node.name == name]
        for node in classes[:1]:
            found = [each for method in methods for each in methods_of(node, method)]
            if source is not None and found and found[0].returns is None:
                method = found[0]
                findings.append(
                    Finding(
                        Severity.WARNING,
                        f"{name}.{method.name}() is missing a return type annotation",
                        f"Add a return type annotation: def {method.name}(self, ...) -> YourType:",
                        f"{source.path}:{method.lineno}",
                    )
                )
    return findings


def top_level(source: PythonSource | None) -> list[ast.stmt]:
    return source.tree.body if source is not None and source.tree is not None else []


def methods_of(node: ast.ClassDef, name: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    return [
        each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name == name
    ]


def _names_in(tree: ast.AST, *, without: set[int] | frozenset[int] = frozenset()) -> set[str]:
    """Names that are used, imports aside; ``without`` are ids of nodes that do not count."""
    return {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in without}


def _as_list(edits: Edit | list[Edit]) -> list[Edit]:
    return [edits] if isinstance(edits, Edit) else edits


PYTHON_CHECKS = (
    Check(Group.PYTHON, "Pydantic BaseModel workaround", find_pydantic_workarounds, fix_pydantic_workarounds),
    Check(Group.PYTHON, "Deprecated imports", find_deprecated_imports, fix_deprecated_imports),
    Check(Group.PYTHON, "Type annotations", find_missing_annotations),
)
