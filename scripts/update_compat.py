"""Regenerates ``cogkit/project/data/*.json`` from what the projects themselves publish.

    python scripts/update_compat.py                # all three
    python scripts/update_compat.py torch          # one
    python scripts/update_compat.py --check        # say what would change, change nothing (exit code 1 if anything)

Sources: the tags of ``nvidia/cuda`` on Docker Hub and the cuDNN version in their image configs; the wheels listed on
download.pytorch.org, with PyPI's word on which torchvision goes with which torch; the table on tensorflow.org.
It needs to reach those hosts, and nothing but Python's standard library.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[1] / "cogkit" / "project" / "data"
MINIMUM_CUDA = (11, 0)
MINIMUM_TORCH = (1, 11)
MINIMUM_PYTHON = (3, 10)

# The wheels of torch 2.0 on PyPI are the builds for CUDA 11.7, and download.pytorch.org has no others for it.
PYPI_CUDA = {"2.0.0": "11.7", "2.0.1": "11.7"}

Row = dict[str, Any]

_CUDA_TAG = re.compile(r"(\d+\.\d+\.\d+)-(cudnn\d*)-devel-ubuntu(\d\d\.\d\d)\Z")
_TORCH_WHEEL = re.compile(r"torch-(\d+\.\d+\.\d+)(?:\+(cpu|cu\d+))?-cp(\d)(\d+)-cp\d+m?-(\w+)\.whl")
_LINUX = re.compile(r"(linux|manylinux\w+)_x86_64\Z")


def cuda_rows(tags: Iterable[str], cudnn_major: Callable[[str], str]) -> list[Row]:
    """Rows of ``cuda.json`` from the names of tags.

    Args:
        tags: Names such as ``12.8.1-cudnn-devel-ubuntu24.04``; others are passed over.
        cudnn_major: Tells the major version of cuDNN in the image of a tag, for tags that do not say it.
    """
    found: dict[tuple[str, str, str], list[str]] = {}
    for tag in sorted(set(tags)):
        match = _CUDA_TAG.match(tag)
        if match is None or version_key(match[1]) < MINIMUM_CUDA:
            continue
        cuda, flavor, ubuntu = match.groups()
        cudnn = flavor.removeprefix("cudnn") or cudnn_major(tag)
        found.setdefault((cuda, cudnn, flavor), []).append(ubuntu)
    return [
        {"cuda": cuda, "cudnn": cudnn, "flavor": flavor, "ubuntu": sorted(ubuntu)}
        for (cuda, cudnn, flavor), ubuntu in sorted(found.items(), key=lambda item: version_key(item[0][0]))
    ]


def torch_rows(listing: str, torchvision_of: dict[str, str]) -> list[Row]:
    """Rows of ``torch.json``.

    Args:
        listing: The page that lists the torch wheels.
        torchvision_of: The torchvision version that belongs to a torch version.
    """
    builds: dict[str, set[str]] = {}
    pythons: dict[str, set[tuple[int, int]]] = {}
    for wheel in _TORCH_WHEEL.finditer(urllib.parse.unquote(listing)):
        version, build, major, minor, platform = wheel.groups()
        python = (int(major), int(minor))
        if not _LINUX.match(platform) or version_key(version) < MINIMUM_TORCH or python < MINIMUM_PYTHON:
            continue
        pythons.setdefault(version, set()).add(python)
        if build:
            builds.setdefault(version, set()).add(build)
    rows: list[Row] = []
    for version in sorted(pythons, key=version_key):
        if version not in torchvision_of or (version not in builds and version not in PYPI_CUDA):
            continue
        row: Row = {
            "torch": version,
            "torchvision": torchvision_of[version],
            "python": [f"{major}.{minor}" for major, minor in sorted(pythons[version])],
            "builds": sorted(builds.get(version, ())),
        }
        if version in PYPI_CUDA:
            row["pypi_cuda"] = PYPI_CUDA[version]
        if version_key(version) < (2, 0):
            row["torchvision_suffixed"] = True
        rows.append(row)
    return rows


def tensorflow_rows(page: str) -> list[Row]:
    """Rows of ``tensorflow.json`` from the page with the tested build configurations."""
    parser = _GpuTable()
    parser.feed(page)
    rows: list[Row] = []
    for cells in parser.rows:
        if len(cells) < 6 or not cells[0].startswith("tensorflow-"):
            continue
        version, cudnn, cuda = cells[0].removeprefix("tensorflow-"), cells[4], cells[5]
        if version_key(cuda) >= MINIMUM_CUDA:
            rows.append({"tensorflow": version, "cuda": cuda, "cudnn": cudnn, "python": list(_pythons(cells[1]))})
    return sorted(rows, key=lambda row: version_key(row["tensorflow"]))


class _GpuTable(HTMLParser):
    """Collects the cells of the first table after the heading ``id="gpu"``."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._state = "before"
        self._cell: list[str] | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._state == "before" and ("id", "gpu") in attrs:
            self._state = "heading"
        elif self._state == "heading" and tag == "table":
            self._state = "table"
        elif self._state == "table" and tag == "tr":
            self.rows.append([])
        elif self._state == "table" and tag == "td":
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        if self._state == "table" and tag == "table":
            self._state = "after"
        elif tag == "td" and self._cell is not None:
            self.rows[-1].append("".join(self._cell).strip())
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)


def _pythons(cell: str) -> Iterator[str]:
    """``3.9-3.12, 3.14`` spelt out."""
    for part in cell.split(","):
        first, _, last = (text.strip() for text in part.partition("-"))
        major, minor = first.split(".")
        for each in range(int(minor), int((last or first).split(".")[1]) + 1):
            yield f"{major}.{each}"


def version_key(version: str) -> tuple[int, ...]:
    """What versions are sorted by."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def render(source: str, key: str, rows: list[Row]) -> str:
    """The text of a data file: one row to a line, so that a diff shows what changed."""
    lines = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    return f'{{\n  "source": {json.dumps(source)},\n  "{key}": [\n{lines}\n  ]\n}}\n'


def _get(url: str, headers: dict[str, str] | None = None) -> bytes:
    request = urllib.request.Request(url, headers={"User-Agent": "update_compat", **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            content: bytes = response.read()
    except OSError as error:
        sys.exit(f"cannot get {url}: {error}")
    return content


def _cuda_tags() -> Iterator[str]:
    url: str | None = (
        "https://hub.docker.com/v2/repositories/nvidia/cuda/tags/?page_size=100&name=devel-ubuntu&ordering=last_updated"
    )
    while url:
        page = json.loads(_get(url))
        yield from (result["name"] for result in page["results"])
        url = page["next"]


def _cudnn_in_image(tag: str) -> str:
    token = json.loads(
        _get("https://auth.docker.io/token?service=registry.docker.io&scope=repository:nvidia/cuda:pull")
    )
    base = "https://registry-1.docker.io/v2/nvidia/cuda"
    kinds = (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.index.v1+json",
    )
    headers = {"Authorization": f"Bearer {token['token']}", "Accept": ", ".join(kinds)}
    manifest = json.loads(_get(f"{base}/manifests/{tag}", headers))
    if "manifests" in manifest:
        digest = next(one["digest"] for one in manifest["manifests"] if one["platform"]["architecture"] == "amd64")
        manifest = json.loads(_get(f"{base}/manifests/{digest}", headers))
    config = json.loads(_get(f"{base}/blobs/{manifest['config']['digest']}", headers))
    variables = dict(entry.partition("=")[::2] for entry in config["config"]["Env"])
    return str(variables["NV_CUDNN_VERSION"]).split(".")[0]


def _torchvision_of_torch() -> dict[str, str]:
    found: dict[str, str] = {}
    releases = json.loads(_get("https://pypi.org/pypi/torchvision/json"))["releases"]
    for version in sorted((one for one in releases if re.fullmatch(r"\d+\.\d+\.\d+", one)), key=version_key):
        info = json.loads(_get(f"https://pypi.org/pypi/torchvision/{version}/json"))["info"]
        for requirement in info["requires_dist"] or ():
            match = re.match(r"torch\s*\(?==\s*(\d+\.\d+\.\d+)", requirement)
            if match:
                found[match[1]] = version
    return found


def _cuda() -> tuple[str, list[Row]]:
    return "images", cuda_rows(_cuda_tags(), _cudnn_in_image)


def _torch() -> tuple[str, list[Row]]:
    listing = _get("https://download.pytorch.org/whl/torch/").decode()
    return "releases", torch_rows(listing, _torchvision_of_torch())


def _tensorflow() -> tuple[str, list[Row]]:
    return "releases", tensorflow_rows(_get("https://www.tensorflow.org/install/source").decode())


FILES: dict[str, Callable[[], tuple[str, list[Row]]]] = {"cuda": _cuda, "torch": _torch, "tensorflow": _tensorflow}


def main() -> int:
    """Fetches, compares, and unless only checking writes."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *FILES], help="which data; all by default")
    parser.add_argument("--check", action="store_true", help="change nothing, exit with 1 if something would change")
    arguments = parser.parse_args()
    changed = False
    for name in arguments.names or FILES:
        path = DATA / f"{name}.json"
        old = json.loads(path.read_text())
        key, rows = FILES[name]()
        if len(rows) < len(old[key]) // 2:
            sys.exit(f"{name}: only {len(rows)} rows, there were {len(old[key])}; has the source changed its form?")
        same = rows == old[key]
        changed = changed or not same
        print(f"{name}: {len(rows)} rows, {'unchanged' if same else 'changed'}")
        if not same and not arguments.check:
            path.write_text(render(old["source"], key, rows))
    return 1 if arguments.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
