"""The golden Dockerfiles: what `cogkit.dockerfile` makes of each project under ``cases``.

Run ``python tests/golden/regenerate.py`` after a change that is meant to change them, and read the diff.

A case is a folder with ``project/`` (a ``cog.yaml`` and what belongs to it), perhaps ``options.json``, and what came
out: ``Dockerfile``, ``staged/`` and ``warnings.txt``.  ``options.json`` may hold:

- ``options``: fields of `GenerateOptions`
- ``environment``: COG_SDK_WHEEL, COGLET_WHEEL, COG_CA_CERT; relative paths start in ``project``
- ``cog_base``: true to start from the cog base image
- ``config``: the config file, if it is not ``cog.yaml``
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from cogkit.dockerfile import Generated, GenerateOptions, cog_base_image, generate, stage
from cogkit.project.config import Config, load_config

CASES = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Result:
    """What a case gives: the parsed config, the generated text, and every file of the case by name."""

    config: Config
    generated: Generated
    files: dict[str, bytes]


def case_names() -> list[str]:
    """The cases, sorted."""
    return sorted(path.name for path in CASES.iterdir() if path.is_dir())


def run_case(name: str, project: Path | None = None) -> Result:
    """Generates the Dockerfile of a case, from its project or from a copy of it elsewhere."""
    folder = CASES / name
    project = project or folder / "project"
    options_file = folder / "options.json"
    settings: dict[str, Any] = json.loads(options_file.read_text()) if options_file.exists() else {}
    given = {
        key: tuple(value) if isinstance(value, list) else value for key, value in settings.get("options", {}).items()
    }
    filename = settings.get("config", "cog.yaml")
    config = load_config(project / filename, project_dir=project)
    if settings.get("cog_base"):
        given["cog_base_image"] = cog_base_image(config)
    options = GenerateOptions.from_environment(
        settings.get("environment", {}), working_dir=project, config_filename=filename, **given
    )
    generated = generate(config, options)
    files = {"Dockerfile": generated.dockerfile.encode()}
    with tempfile.TemporaryDirectory() as temporary:
        stage(generated.files, Path(temporary))
        for path in Path(temporary).rglob("*"):
            if path.is_file():
                files[f"staged/{path.relative_to(temporary).as_posix()}"] = path.read_bytes()
    warnings = [warning.message for warning in config.warnings] + list(generated.warnings)
    if warnings:
        files["warnings.txt"] = "".join(f"{warning}\n" for warning in warnings).encode()
    return Result(config, generated, files)


def expected_files(name: str) -> dict[str, bytes]:
    """The files that a case is expected to give."""
    folder = CASES / name
    paths = [folder / "Dockerfile", folder / "warnings.txt", *(folder / "staged").rglob("*")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths if path.is_file()}


def main() -> None:
    """Writes what every case gives now."""
    changed = 0
    for name in case_names():
        result = run_case(name)
        if result.files == expected_files(name):
            continue
        changed += 1
        print(f"changed: {name}")
        folder = CASES / name
        shutil.rmtree(folder / "staged", ignore_errors=True)
        (folder / "warnings.txt").unlink(missing_ok=True)
        for relative, content in result.files.items():
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    print(f"{len(case_names())} cases, {changed} changed")


if __name__ == "__main__":
    main()
