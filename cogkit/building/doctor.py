"""``cogkit doctor``: runs the checks of a project and of what builds it, and the fixes that were asked for.

What the checks of a project are is in `cogkit.project.doctor`; those of the surroundings are here.  This file must not
print anything.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path

from cogkit.buildkit.connect.address import TlsConfig
from cogkit.errors import CogkitError, ConfigError
from cogkit.fast_dataclass import dataclass
from cogkit.project.compat import at_least, framework_version
from cogkit.project.doctor.config_checks import CONFIG_CHECKS
from cogkit.project.doctor.findings import CannotFixError, Check, Finding, Group, Severity
from cogkit.project.doctor.python_checks import PYTHON_CHECKS
from cogkit.project.doctor.sources import ProjectSources
from cogkit.project.dotcog import DotCog, ReadOnlyProjectError
from cogkit.registry.docker_config import HELPER_PREFIX, DockerConfig

SKIP_BUILDER = "COG_SKIP_DOCKER_CHECK"
SKIP_GPU = "COG_SKIP_GPU_CHECK"
CHECK_TIMEOUT = 5.0
"""Seconds that the builder, or another program, may take to answer."""

GPU_FLOORS = (((12, 0), "2.7.0", "12.8"), ((10, 0), "2.7.0", "12.8"), ((9, 0), "2.0.1", "11.8"))
"""Compute capability, and the oldest torch and CUDA with kernels for it (Cog ``pkg/doctor/gpu_compatibility.go``)."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of one check.

    Attributes:
        findings: What was wrong.
        fixed: Whether all of it was put right.
        problem: Why it could not be put right, or looked at.
    """

    check: Check
    findings: tuple[Finding, ...] = ()
    fixed: bool = False
    problem: str | None = None

    @property
    def errors(self) -> int:
        """How many errors are left."""
        found = 0 if self.fixed else sum(finding.severity is Severity.ERROR for finding in self.findings)
        return found + (self.problem is not None)

    @property
    def warnings(self) -> int:
        return 0 if self.fixed else sum(finding.severity is Severity.WARNING for finding in self.findings)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What builds the project.

    Attributes:
        address: The builder's address, if it is named by that.
        builder: Its name in the list of builders, if it is named by that.
        tls: Files for getting to the address.
        environ: The environment.
    """

    address: str | None = None
    builder: str | None = None
    tls: TlsConfig | None = None
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)


def run_checks(root: Path, config_path: Path, surroundings: Surroundings, *, fix: bool = False) -> list[CheckResult]:
    """Run all checks, and with ``fix`` each check's fix right after it, so that later checks see it.

    Raises:
        ConfigError: the configuration cannot be read at all.
    """
    project = ProjectSources.read(root, config_path)
    results: list[CheckResult] = []
    for check in all_checks(surroundings):
        result = _run(check, project, fix=fix)
        results.append(result)
        if result.fixed:
            project = ProjectSources.read(root, config_path)
    return results


def run_machine_checks(surroundings: Surroundings) -> list[CheckResult]:
    """Run the checks of what builds a project, for one that is a Dockerfile."""
    checks: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
        ("Builder", lambda: find_builder(surroundings)),
        ("Registry logins", lambda: find_logins(surroundings.environ)),
    )
    return [_result(Check(Group.ENVIRONMENT, name, lambda project: []), find) for name, find in checks]


def all_checks(surroundings: Surroundings) -> Sequence[Check]:
    """Every check, in the order in which they are run and shown."""
    checks = (
        *CONFIG_CHECKS,
        *PYTHON_CHECKS,
        Check(Group.ENVIRONMENT, "Builder", lambda project: find_builder(surroundings)),
        Check(Group.ENVIRONMENT, "Project folder", find_dotcog),
        Check(Group.ENVIRONMENT, "Registry logins", lambda project: find_logins(surroundings.environ)),
        Check(Group.ENVIRONMENT, "Python version", find_python_version),
        Check(Group.ENVIRONMENT, "GPU compatibility", lambda project: find_gpu(project, surroundings.environ)),
    )
    groups = list(Group)
    return sorted(checks, key=lambda check: groups.index(check.group))


def _result(check: Check, find: Callable[[], Iterable[Finding]]) -> CheckResult:
    try:
        return CheckResult(check, tuple(find()))
    except CogkitError as problem:
        return CheckResult(check, problem=str(problem))


def _run(check: Check, project: ProjectSources, *, fix: bool) -> CheckResult:
    result = _result(check, lambda: check.find(project))
    findings = result.findings
    if not (fix and findings and check.fix):
        return result
    try:
        check.fix(project)
    except CannotFixError as refusal:
        return CheckResult(check, findings, problem=refusal.message)
    except CogkitError as problem:
        return CheckResult(check, findings, problem=str(problem))
    return CheckResult(check, findings, fixed=True)


# ---- what builds


def find_builder(surroundings: Surroundings) -> list[Finding]:
    if surroundings.environ.get(SKIP_BUILDER):
        return []
    warnings: list[str] = []
    try:
        asyncio.run(_ask_builder(surroundings, warnings.append))
    except CogkitError as problem:
        return [Finding(Severity.ERROR, f"no builder: {problem.message}", problem.hint or "")]
    return [Finding(Severity.WARNING, warning, "") for warning in warnings]


async def _ask_builder(surroundings: Surroundings, warn: Callable[[str], None]) -> None:
    """Connect to where a build would go; the private builder needs only what it is started with."""
    from cogkit.builders.choice import choose
    from cogkit.builders.connecting import connected

    target = choose(surroundings.address, surroundings.builder, tls=surroundings.tls, environ=surroundings.environ)
    if target.private is not None:
        from cogkit.builders.programs import find_programs

        find_programs()
        return
    async with connected(target, warn=warn) as client:
        await client.list_workers()


def find_dotcog(project: ProjectSources) -> list[Finding]:
    """Whether ``.cog`` can be used, and who is using it."""
    if not os.path.lexists(project.root / ".cog"):
        # Looking must not make it.
        return []
    try:
        with DotCog.open(project.root) as dotcog:
            holder = dotcog.holder()
    except ReadOnlyProjectError as problem:
        return [Finding(Severity.INFO, f"{problem.message}; builds use a temporary folder", place=problem.where or "")]
    except ConfigError as problem:
        return [Finding(Severity.ERROR, problem.message, problem.hint or "", problem.where or "")]
    if holder is None:
        return []
    return [Finding(Severity.INFO, f"a build of the project is running: {holder}", place=".cog/cog.lock")]


def find_logins(environ: Mapping[str, str]) -> list[Finding]:
    config = DockerConfig.load(environ)
    unused = [
        Finding(
            Severity.WARNING,
            f"a registry login is not used: {fault.message}",
            fault.hint or "Correct the file, or log in again",
            fault.where or "",
        )
        for fault in config.warnings
    ]
    programs = {f"{HELPER_PREFIX}{name}" for name in (config.store, *config.helpers.values()) if name}
    return unused + [
        Finding(
            Severity.WARNING,
            f"the Docker config asks {program} for logins, and there is no such program in PATH",
            "Install it, or take it out of the Docker config",
        )
        for program in sorted(programs)
        if shutil.which(program, path=environ.get("PATH")) is None
    ]


def find_python_version(project: ProjectSources) -> list[Finding]:
    """The model may be run here with another Python than in the image."""
    if project.config is None or not project.config.build.python_version:
        return []
    numbers = [int(number) for number in re.findall(r"\d+", project.config.build.python_version)[:2]]
    wanted, here = tuple(numbers), sys.version_info[:2]
    if len(wanted) < 2 or wanted <= here:
        return []
    return [
        Finding(
            Severity.INFO,
            f"local Python is {here[0]}.{here[1]} but {project.filename} specifies {wanted[0]}.{wanted[1]}",
            "This is usually fine; sources are read by the grammar of the image's Python",
        )
    ]


def find_gpu(project: ProjectSources, environ: Mapping[str, str]) -> list[Finding]:
    """Whether the machine's own GPUs can run the torch of the image."""
    config = project.config
    if config is None or not config.build.gpu or environ.get(SKIP_GPU):
        return []
    torch = framework_version("torch", config.requirements)
    if not torch:
        return []
    findings = []
    for capability in _compute_capabilities():
        floor = next((floor for floor in GPU_FLOORS if capability >= floor[0]), None)
        if floor is None:
            continue
        _, oldest_torch, oldest_cuda = floor
        cuda = config.build.cuda
        if at_least(torch.partition("+")[0], oldest_torch) and (not cuda or at_least(cuda, oldest_cuda)):
            continue
        name = f"sm_{capability[0]}{capability[1]}"
        findings.append(
            Finding(
                Severity.WARNING,
                f"torch=={torch} (CUDA {cuda or 'unset'}) ships no kernels for {name}, the compute capability of this "
                "machine's GPU. The image will build, but every CUDA operation in it will fail at runtime with "
                '"no kernel image is available for execution on the device".',
                f"{name} requires torch>={oldest_torch} built against CUDA>={oldest_cuda}. Pin a newer torch, or set "
                f"{SKIP_GPU}=1 if you are building for a different GPU than the one in this machine.",
            )
        )
    return findings


def _compute_capabilities() -> list[tuple[int, int]]:
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=CHECK_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = re.findall(r"(?m)^\s*(\d+)\.(\d+)\s*$", done.stdout) if done.returncode == 0 else []
    return sorted({(int(major), int(minor)) for major, minor in found})
