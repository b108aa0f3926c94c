"""scripts/update_compat.py: what it makes of the pages it reads, without reading them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("update_compat", ROOT / "scripts" / "update_compat.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cuda", "torch", "tensorflow"])
def test_the_data_files_are_as_the_script_writes_them(script: ModuleType, name: str) -> None:
    text = (ROOT / "cogkit" / "project" / "data" / f"{name}.json").read_text()
    content = json.loads(text)
    source, key = content["source"], next(key for key in content if key != "source")
    assert script.render(source, key, content[key]) == text


def test_cuda_tags_become_images(script: ModuleType) -> None:
    tags = [
        "12.8.1-cudnn-devel-ubuntu24.04",
        "12.8.1-cudnn-devel-ubuntu22.04",
        "11.8.0-cudnn8-devel-ubuntu22.04",
        "12.8.1-cudnn-runtime-ubuntu22.04",
        "12.8.1-devel-ubuntu22.04",
        "10.2-cudnn8-devel-ubuntu18.04",
        "13.0.0-cudnn-devel-ubuntu24.04-rc",
        "latest",
    ]
    asked: list[str] = []

    def cudnn_major(tag: str) -> str:
        asked.append(tag)
        return "9"

    assert script.cuda_rows(tags, cudnn_major) == [
        {"cuda": "11.8.0", "cudnn": "8", "flavor": "cudnn8", "ubuntu": ["22.04"]},
        {"cuda": "12.8.1", "cudnn": "9", "flavor": "cudnn", "ubuntu": ["22.04", "24.04"]},
    ]
    assert len(asked) == 2


def test_torch_wheels_become_releases(script: ModuleType) -> None:
    listing = "".join(
        f'<a href="/whl/{name}">{name}</a><br/>'
        for name in (
            "torch-2.7.1%2Bcu128-cp312-cp312-manylinux_2_28_x86_64.whl",
            "torch-2.7.1%2Bcpu-cp310-cp310-manylinux_2_28_x86_64.whl",
            "torch-2.7.1%2Bxpu-cp313-cp313-linux_x86_64.whl",
            "torch-2.7.1%2Bcu118-cp39-cp39-manylinux_2_28_x86_64.whl",
            "torch-2.7.1%2Bcu126-cp312-cp312-win_amd64.whl",
            "torch-2.7.1-cp313-none-macosx_11_0_arm64.whl",
            "torch-2.0.1-cp310-cp310-manylinux1_x86_64.whl",
            "torch-2.0.1%2Bcpu-cp311-cp311-linux_x86_64.whl",
            "torch-1.12.0%2Bcpu-cp310-cp310-linux_x86_64.whl",
            "torch-1.9.0%2Bcpu-cp310-cp310-linux_x86_64.whl",
            "torch-9.9.9%2Bcpu-cp312-cp312-linux_x86_64.whl",
        )
    )
    pairs = {"2.7.1": "0.22.1", "2.0.1": "0.15.2", "1.12.0": "0.13.0", "1.9.0": "0.10.0"}
    assert script.torch_rows(listing, pairs) == [
        {
            "torch": "1.12.0",
            "torchvision": "0.13.0",
            "python": ["3.10"],
            "builds": ["cpu"],
            "torchvision_suffixed": True,
        },
        {
            "torch": "2.0.1",
            "torchvision": "0.15.2",
            "python": ["3.10", "3.11"],
            "builds": ["cpu"],
            "pypi_cuda": "11.7",
        },
        {"torch": "2.7.1", "torchvision": "0.22.1", "python": ["3.10", "3.12"], "builds": ["cpu", "cu128"]},
    ]


def test_the_table_of_tensorflow_becomes_releases(script: ModuleType) -> None:
    page = """
    <h4 id="cpu">CPU</h4><table><tr><td>tensorflow-9.9.9</td></tr></table>
    <h4 id="gpu">GPU</h4>
    <table><tr><th>Version</th></tr>
    <tr><td>tensorflow-2.20.0</td><td>3.9-3.11, 3.13</td><td>Clang</td><td>Bazel</td><td>9.3</td><td>12.5</td></tr>
    <tr><td>tensorflow-2.4.0</td><td>3.6</td><td>GCC</td><td>Bazel</td><td>8.0</td><td>11.0</td></tr>
    <tr><td>tensorflow-1.15.0</td><td>3.6</td><td>GCC</td><td>Bazel</td><td>7.4</td><td>10.0</td></tr>
    </table><table><tr><td>tensorflow-8.8.8</td></tr></table>
    """
    assert script.tensorflow_rows(page) == [
        {"tensorflow": "2.4.0", "cuda": "11.0", "cudnn": "8.0", "python": ["3.6"]},
        {"tensorflow": "2.20.0", "cuda": "12.5", "cudnn": "9.3", "python": ["3.9", "3.10", "3.11", "3.13"]},
    ]
