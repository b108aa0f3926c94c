"""The checks of ``cog.yaml`` and of what it refers to.

Facts are from Cog (``pkg/doctor/check_config_*.go``).
"""

from __future__ import annotations

import ast

from cogkit.errors import ConfigError
from cogkit.project.doctor.findings import Check, Finding, Group, Severity
from cogkit.project.doctor.migration import find_predict_names, fix_predict_names
from cogkit.project.doctor.python_checks import top_level
from cogkit.project.doctor.sources import ProjectSources, reference_parts
from cogkit.project.schema import generate_schema
from cogkit.project.schema.evaluation import ask
from cogkit.project.weights.managed import runtime_manifest

_DEPRECATED = "deprecated field"
_FIRST = "Put right first what is said above"


def find_syntax_errors(project: ProjectSources) -> list[Finding]:
    problem = project.syntax_error
    if problem is None:
        return []
    message = f"{project.filename} has invalid YAML: {problem.message}"
    return [_error(message, problem, f"Fix the YAML syntax in {project.filename}", project.filename)]


def find_config_errors(project: ProjectSources) -> list[Finding]:
    problem = project.config_error
    if problem is None:
        return []
    message = f"{project.filename} validation failed: {problem.message}"
    return [_error(message, problem, f"Fix the configuration errors in {project.filename}", project.filename)]


def find_deprecated_fields(project: ProjectSources) -> list[Finding]:
    return [
        Finding(
            Severity.WARNING,
            f'"{warning.field}" is deprecated: {warning.message}',
            _instead(warning.message),
            place=warning.where or project.filename,
        )
        for warning in (project.config.warnings if project.config else ())
        if warning.message.startswith(_DEPRECATED)
    ]


def _instead(message: str) -> str:
    """What a warning says to use, as what to do."""
    return f"Use {message.partition(': use ')[2]}" if ": use " in message else ""


def find_doubts(project: ProjectSources) -> list[Finding]:
    return [
        Finding(Severity.WARNING, warning.message, place=warning.where or project.filename)
        for warning in (project.config.warnings if project.config else ())
        if not warning.message.startswith(_DEPRECATED)
    ]


def find_bad_references(project: ProjectSources) -> list[Finding]:
    config = project.config
    if config is None:
        return []
    findings = _bad_reference(project, "predict", config.run, "predict.py:Predictor") if config.run else []
    return findings + (_bad_reference(project, "train", config.train, "train.py:train") if config.train else [])


def _bad_reference(project: ProjectSources, key: str, reference: str, example: str) -> list[Finding]:
    file, name = reference_parts(reference)
    if not file or not name:
        return [
            Finding(
                Severity.ERROR,
                f"{key} reference \"{reference}\" must be in the form 'file.py:ClassName'",
                f'Set {key} to "{example}" in {project.filename}',
                project.filename,
            )
        ]
    if not (project.root / file).exists():
        return [
            Finding(
                Severity.ERROR,
                f"{file} not found",
                f"Create {file} or update the {key} field in {project.filename}",
                project.filename,
            )
        ]
    source = project.source(file)
    if source is None:
        return [Finding(Severity.ERROR, f"cannot read {file}", f"Make {file} a file that you can read", file)]
    if source.tree is None:
        return [Finding(Severity.ERROR, f"cannot parse {file}: {source.fault}", f"Fix the syntax of {file}", file)]
    names = [
        node.name
        for node in top_level(source)
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    if name in names:
        return []
    found = f"; found: {', '.join(names)}" if names else ""
    remediation = f"Add class {name} to {file} or update the {key} field in {project.filename}"
    return [Finding(Severity.ERROR, f'class "{name}" not found in {file}{found}', remediation, file)]


def find_schema_errors(project: ProjectSources) -> list[Finding]:
    config = project.config
    if config is None:
        return [Finding(Severity.INFO, f"not checked, because {project.filename} cannot be used", _FIRST)]
    if not (config.run or config.train):
        return []
    if find_bad_references(project):
        return [Finding(Severity.INFO, "not checked, because what it refers to cannot be read", _FIRST)]
    try:
        made = generate_schema(config, project.root, answers={})
    except ConfigError as problem:
        return [_error(problem.message, problem, problem.hint or "", project.filename)]
    evaluation = ask(made)
    findings = []
    for told in evaluation.told if evaluation is not None else ():
        place, _, what = told.partition(": ")
        findings.append(
            Finding(
                Severity.INFO,
                f"a build evaluates this in the image: {what}",
                "Write it as a literal or a constant of the project, if it should not",
                place,
            )
        )
    return findings


def find_weights_errors(project: ProjectSources) -> list[Finding]:
    if project.config is None:
        return []
    try:
        runtime_manifest(project.config)
    except ConfigError as problem:
        return [_error(problem.message, problem, problem.hint or "", project.filename)]
    return []


def _error(message: str, problem: ConfigError, remediation: str, filename: str) -> Finding:
    return Finding(Severity.ERROR, message, remediation, problem.where or filename)


CONFIG_CHECKS = (
    Check(Group.CONFIG, "Config parsing", find_syntax_errors),
    Check(Group.CONFIG, "Config schema", find_config_errors),
    Check(Group.CONFIG, "Deprecated predict interface names", find_predict_names, fix_predict_names),
    Check(Group.CONFIG, "Deprecated fields", find_deprecated_fields),
    Check(Group.CONFIG, "Versions that go together", find_doubts),
    Check(Group.CONFIG, "Predict reference", find_bad_references),
    Check(Group.CONFIG, "Managed weights", find_weights_errors),
    Check(Group.PYTHON, "Model schema", find_schema_errors),
)
