"""``cogkit doctor``: find out what is wrong with a project, and put right what is safe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cogkit.cli.build_options import choose_context, takes
from cogkit.cli.builder_options import AskingFlags
from cogkit.cli.flags import PROJECT, ContextFlag, FileFlag, PathArgument

if TYPE_CHECKING:
    from cogkit.building.doctor import CheckResult

EXAMPLES = """
\b
Examples:
  cogkit doctor             say what is wrong
  cogkit doctor --fix       and put right what is safe
"""

FixFlag = Annotated[bool, typer.Option("--fix", help="Put right what can be without a doubt.", rich_help_panel=PROJECT)]


@takes(AskingFlags, without=["compress"])
def doctor(
    flags: AskingFlags,
    path: PathArgument = None,
    context: ContextFlag = None,
    file: FileFlag = None,
    fix: FixFlag = False,
) -> None:
    """Check a project for what is known to go wrong: cog.yaml, the model's source, the builder, the logins.

    The exit code is 1 if there are errors, 0 if there is nothing or only warnings. --fix changes a file only where a
    finding says so, whole or not at all, and refuses where that could change what the code does.

    Of a project that is a Dockerfile, builder and logins are checked.
    """
    from cogkit.building.doctor import Surroundings, run_checks, run_machine_checks
    from cogkit.project.discover import ProjectKind, resolve_project

    project = resolve_project(choose_context(path, context), file)
    surroundings = Surroundings(flags.addr, flags.builder, flags.tls())
    _say("NOTE: doctor is experimental. Behavior and checks may change in future versions.\n")
    if project.kind is ProjectKind.COG and project.config_path is not None:
        results = run_checks(project.root, project.config_path, surroundings, fix=fix)
    else:
        results = run_machine_checks(surroundings)
    group = None
    for result in results:
        if result.check.group is not group:
            group = result.check.group
            _say(group.value)
        _show(result, fix=fix)
    _say(f"\n{_summary(results, fix=fix)}")
    if any(result.errors for result in results):
        raise typer.Exit(1)


def _show(result: CheckResult, *, fix: bool) -> None:
    from cogkit.project.doctor.findings import Severity

    description = result.check.description
    if result.problem is not None:
        _say(f"  {_mark('error')} {description}: {result.problem}")
    elif result.fixed:
        _say(f"  {_mark('ok')} Fixed: {description}")
    else:
        worst = min((finding.severity for finding in result.findings), default=None)
        kind = {None: "ok", Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "info"}[worst]
        _say(f"  {_mark(kind)} {description}")
    for finding in result.findings:
        _say(f"      {finding.place}{' — ' if finding.place else ''}{finding.message}")
        if not result.fixed and finding.remediation:
            _say(f"        Remediation: {finding.remediation}")
        elif not result.fixed and fix:
            _say("        (no auto-fix available)")


def _summary(results: list[CheckResult], *, fix: bool) -> str:
    errors = sum(result.errors for result in results)
    warnings = sum(result.warnings for result in results)
    fixed = sum(len(result.findings) for result in results if result.fixed)
    if fixed:
        parts = [f"Fixed {_count(fixed, 'issue')}"]
        parts += [f"{_count(warnings, 'warning')} remaining"] if warnings else []
        parts += [_count(errors, "unfixed error")] if errors else []
        return ". ".join(parts) + "."
    if not errors and not warnings:
        return "no issues found"
    counts = [_count(number, name) for number, name in ((errors, "error"), (warnings, "warning")) if number]
    fixable = not fix and any(result.check.fix and (result.errors or result.warnings) for result in results)
    return f"Found {', '.join(counts)}." + (' Run "cogkit doctor --fix" to auto-fix.' if fixable else "")


def _count(number: int, name: str) -> str:
    return f"{number} {name}{'' if number == 1 else 's'}"


def _mark(kind: str) -> str:
    plain, sign, color = {
        "ok": ("ok     ", "✓", typer.colors.GREEN),
        "info": ("info   ", "i", typer.colors.BLUE),
        "warning": ("warning", "!", typer.colors.YELLOW),
        "error": ("error  ", "✗", typer.colors.RED),
    }[kind]
    from cogkit.cli.ui.failure import wants_color

    return typer.style(sign, fg=color, bold=True) if wants_color(sys.stderr) else plain


def _say(text: str) -> None:
    from cogkit.cli.ui.text import harmless

    typer.echo("\n".join(harmless(line, colors=True) for line in text.split("\n")), err=True)
