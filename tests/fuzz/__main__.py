"""Run targets under atheris: ``python -m tests.fuzz [--seconds N] [TARGET…]`` (``make fuzz SECONDS=N``).

Each target runs in a process of its own, two at a time.  New inputs go to ``.cache/fuzz/TARGET``; the corpus under
version control (``tests/fuzz/corpus``) is only read, unless ``--keep`` replaces it by as few inputs as have the same
coverage.  An input that breaks a target stays as ``.cache/fuzz/TARGET-crash-…``; ``--replay FILE TARGET`` runs it again
without atheris.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.targets import TARGETS

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = Path(__file__).with_name("corpus")
CACHE = REPOSITORY / ".cache" / "fuzz"

IN_THIS_PROCESS = "--in-this-process"
LIMITS = ("-max_len=4096", "-timeout=10", "-rss_limit_mb=2048")
"""Longest input; most seconds and MiB, beyond which an input is a finding too."""


def main(arguments: Sequence[str]) -> int:
    if arguments and arguments[0] == IN_THIS_PROCESS:
        fuzz(arguments[1], arguments[2:])
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz cogkit's protocol code.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all if none is given")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--keep", action="store_true", help="renew tests/fuzz/corpus from what was found")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="run one input, without atheris")
    options = parser.parse_args(arguments)
    unknown = set(options.targets) - set(TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    targets = options.targets or list(TARGETS)
    CACHE.mkdir(parents=True, exist_ok=True)
    if options.replay is not None:
        TARGETS[targets[0]](options.replay.read_bytes())
    elif options.keep:
        for target in targets:
            keep(target)
    else:
        return fuzz_all(targets, options.seconds)
    return 0


def fuzz(target: str, arguments: Sequence[str]) -> None:
    """Hand one target to libFuzzer, which ends the process."""
    import atheris

    # Only now, with the hooks in place, may the code under test be loaded.
    for name in [name for name in sys.modules if name.startswith(("cogkit.", "tests.fuzz.targets"))]:
        del sys.modules[name]
    with atheris.instrument_imports(include=["cogkit"]):
        from tests.fuzz.targets import TARGETS as instrumented

    atheris.Setup([f"fuzz-{target}", *LIMITS, *arguments], instrumented[target])
    atheris.Fuzz()


def fuzz_all(targets: Sequence[str], seconds: int) -> int:
    """Fuzz targets, two at a time; prints a line for each and returns 1 if one found something."""
    waiting, running, failed = list(targets), dict[str, subprocess.Popen[bytes]](), list[str]()
    while waiting or running:
        while waiting and len(running) < 2:
            target = waiting.pop(0)
            arguments = [f"-max_total_time={seconds}", f"-artifact_prefix={CACHE}/{target}-", "-print_final_stats=1"]
            with (CACHE / f"{target}.log").open("wb") as log:
                running[target] = subprocess.Popen(
                    [*_command(target), *arguments, *_inputs(target)],
                    cwd=REPOSITORY,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
        time.sleep(0.2)
        for target, process in list(running.items()):
            if process.poll() is not None:
                del running[target]
                report(target, process.returncode)
                if process.returncode:
                    failed.append(target)
    return 1 if failed else 0


def report(target: str, code: int) -> None:
    """Print how the fuzzing of a target ended."""
    path = CACHE / f"{target}.log"
    log = path.read_text(errors="replace").splitlines()
    if code:
        print(f"{target}: FOUND something (exit code {code}); the end of {path.relative_to(REPOSITORY)}:")
        print("\n".join(f"    {line[:300]}" for line in log[-40:]), flush=True)
        return
    runs = next((line.rpartition(" ")[2] for line in log if "number_of_executed_units" in line), "?")
    coverage = next((line.split("cov: ")[1].split()[0] for line in reversed(log) if "cov: " in line), "?")
    print(f"{target}: nothing found in {runs} runs (coverage {coverage})", flush=True)


def keep(target: str) -> None:
    """Renew the corpus of a target."""
    with tempfile.TemporaryDirectory() as name:
        merge = [*_command(target), "-merge=1", name, *_inputs(target)]
        subprocess.run(merge, cwd=REPOSITORY, check=True, capture_output=True)
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for found in Path(name).iterdir():
            data = found.read_bytes()
            (folder / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
    print(f"{target}: {len(list(folder.iterdir()))} inputs", flush=True)


def _command(target: str) -> list[str]:
    return [sys.executable, "-m", "tests.fuzz", IN_THIS_PROCESS, target]


def _inputs(target: str) -> list[str]:
    """Folders of inputs; libFuzzer writes to the first."""
    found = CACHE / target
    found.mkdir(parents=True, exist_ok=True)
    return [str(folder) for folder in (found, CORPUS / target) if folder.is_dir()]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
