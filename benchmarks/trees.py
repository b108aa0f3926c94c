"""The folders that benchmarks send, the same at every run: contents follow from names."""

from __future__ import annotations

import random
import sysconfig
from pathlib import Path

IGNORE_PATTERNS = """\
# Sixty patterns, of the kinds that the ignore files of real projects are made of.
**/.git
**/.gitignore
**/.gitattributes
**/.github
**/.gitlab
**/.circleci
**/.idea
**/.vscode
**/*.swp
**/*.swo
**/*~
**/.DS_Store
**/Thumbs.db
**/__pycache__
**/*.pyc
**/*.pyo
**/*.pyd
**/*.so
**/*.egg
**/*.egg-info
**/.eggs
**/.pytest_cache
**/.mypy_cache
**/.ruff_cache
**/.tox
**/.nox
**/.coverage
**/.coverage.*
**/htmlcov
**/.hypothesis
**/.ipynb_checkpoints
**/.venv
**/venv
**/env
**/node_modules
**/bower_components
**/npm-debug.log
**/yarn-error.log
**/.npm
**/.cache
**/dist
**/build
**/target
**/*.log
**/*.tmp
**/*.bak
**/.env
**/.env.*
!**/.env.example
**/*.pem
**/*.key
**/docker-compose*.yml
**/Dockerfile*
**/.dockerignore
**/Makefile.local
**/*.md
!README.md
docs/_build
data/raw/**/*.csv
checkpoints/**/*.pt
"""


def small_files(root: Path, count: int = 50_000, average: int = 4160) -> None:
    """``count`` files in folders of 100, 208 MB in all for the defaults."""
    source = random.Random(count)
    pool = source.randbytes(1 << 20)
    for number in range(count):
        folder = root / f"part{number // 5000:03}" / f"group{number // 100:05}"
        if number % 100 == 0:
            folder.mkdir(parents=True)
        size = source.randrange(average * 2)
        start = source.randrange(len(pool) - size)
        (folder / f"file{number:06}.dat").write_bytes(pool[start : start + size])


def one_file(root: Path, size: int = 1 << 30) -> None:
    """A file of ``size`` bytes that does not compress."""
    root.mkdir(parents=True)
    source = random.Random(size)
    with (root / "weights.bin").open("wb") as file:
        for _ in range(size >> 20):
            file.write(source.randbytes(1 << 20))


def source_code(root: Path, size: int = 25_000_000) -> None:
    """``size`` bytes of program text: Python's own library, as often as it takes."""
    library = Path(sysconfig.get_paths()["stdlib"])
    texts = [
        (path.relative_to(library), path) for path in sorted(library.rglob("*.py")) if "site-packages" not in path.parts
    ]
    written = copy = 0
    while written < size:
        for name, path in texts:
            content = path.read_bytes()
            target = root / f"copy{copy}" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            written += len(content)
            if written >= size:
                return
        copy += 1


def dot_cog(root: Path, count: int = 100_000, sparse_bytes: int = 20_000_000_000) -> None:
    """A ``.cog`` with many files and one huge sparse one."""
    for number in range(count):
        folder = root / ".cog" / "cache" / f"group{number // 500:04}"
        if number % 500 == 0:
            folder.mkdir(parents=True)
        (folder / f"entry{number:06}").touch()
    with (root / ".cog" / "weights.bin").open("wb") as file:
        file.truncate(sparse_bytes)
