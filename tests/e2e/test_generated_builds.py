"""A generated Dockerfile built for real: what is in the image is what cog.yaml and the options asked for."""

from __future__ import annotations

import asyncio
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from cogkit.buildkit.client import AsyncClient
from cogkit.buildkit.gateway.llb_bridge import Gateway, GatewayResult
from cogkit.buildkit.mounts import LocalMount
from cogkit.buildkit.request import SolveRequest
from cogkit.dockerfile import FREEZE_FILE, FREEZE_STAGE, Generated, GenerateOptions, generate, stage
from cogkit.project.config import load_config
from tests.real.buildkitd import Buildkitd

CERTIFICATE = Path(__file__).parents[1] / "golden" / "cases" / "ca-cert" / "project" / "certs" / "ca.crt"


@pytest.mark.one_release_is_enough
def test_everything_a_config_asks_for_is_in_the_image(buildkitd: Buildkitd, tmp_path: Path) -> None:
    project = _project(tmp_path / "project")
    config = load_config(project / "model.yaml")
    options = GenerateOptions.from_environment(
        {"COG_CA_CERT": str(CERTIFICATE)},
        config_filename="model.yaml",
        pip_freeze=True,
        bundle=("openapi_schema.json",),
        weights=("weights/big [1].bin", "other"),
    )
    built = asyncio.run(_build(buildkitd.address, generate(config, options), project, tmp_path))

    freeze = built["freeze"]
    assert {"cog", "coglet", "six"} <= {line.split("==")[0].split(" ")[0] for line in freeze.splitlines()}
    assert "six==1.17.0" in freeze
    assert "local_pkg" in freeze or "local-pkg" in freeze

    image = built["config"]
    assert image["Entrypoint"] == ["/sbin/tini", "--"]
    assert image["Cmd"] == ["python", "-m", "cog.server.http"]
    assert image["WorkingDir"] == "/src"
    assert image["ExposedPorts"] == {"5000/tcp": {}}
    variables = dict(entry.split("=", 1) for entry in image["Env"])
    assert variables["GREETING"] == "hello world"
    assert variables["COG_PREDICT_TYPE_STUB"] == "run.py:Runner"
    assert variables["COG_MAX_CONCURRENCY"] == "3"
    assert variables["SSL_CERT_FILE"] == "/etc/ssl/certs/ca-certificates.crt"
    assert not variables["LD_LIBRARY_PATH"].startswith(":")

    files = built["files"]
    assert files["/made"] == "tini version 0.19.0 hello world"
    assert files["/extension"].strip().endswith(".so")
    assert files["/src/run.py"] == "# the runner\n"
    assert files["/src/cog.yaml"] == (project / "model.yaml").read_text()
    assert files["/src/.cog/openapi_schema.json"] == "{}"
    assert files["/src/weights/big [1].bin"] == "big"
    assert files["/src/other/deep/w"] == "deep"
    assert CERTIFICATE.read_text().strip() in files["/etc/ssl/certs/ca-certificates.crt"]


def _project(folder: Path) -> Path:
    for name, content in {
        "model.yaml": """\
build:
  python_version: "3.11"
  python_requirements: requirements.txt
  system_packages: [tcc]
  run:
    - python -c "import importlib.util as util; print(util.find_spec('local_ext').origin)" > /extension
    - echo "$(tini --version | cut -d' ' -f1-3) $GREETING" > /made
run: run.py:Runner
environment:
  - GREETING=hello world
  - CC=tcc
  - LDSHARED=tcc -shared -nostdlib
concurrency:
  max: 3
""",
        "requirements.txt": "six==1.17.0\n./dist/my local_pkg-1.0-py3-none-any.zip\n",
        "run.py": "# the runner\n",
        "weights/big [1].bin": "big",
        "other/deep/w": "deep",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (folder / "dist").mkdir()
    with zipfile.ZipFile(folder / "dist" / "my local_pkg-1.0-py3-none-any.zip", "w") as archive:
        archive.writestr("local_pkg.py", "")
        archive.writestr(
            "setup.py",
            "from setuptools import Extension, setup\n"
            "extension = Extension('local_ext', ['local_ext.c'])\n"
            "setup(name='local-pkg', version='1.0', py_modules=['local_pkg'], ext_modules=[extension])\n",
        )
        # A small compiler builds it without any headers; it need not be more than there.
        archive.writestr("local_ext.c", "void *PyInit_local_ext(void) { return 0; }\n")
    return folder


async def _build(address: str, generated: Generated, project: Path, scratch: Path) -> dict[str, Any]:
    build_dir, dockerfile_dir = scratch / "build", scratch / "dockerfile"
    build_dir.mkdir()
    dockerfile_dir.mkdir()
    stage(generated.files, build_dir)
    (build_dir / "openapi_schema.json").write_text("{}")
    (dockerfile_dir / "Dockerfile").write_text(generated.dockerfile)
    built: dict[str, Any] = {"files": {}}
    contexts = {f"context:{name}": f"local:{name}" for name in generated.contexts}
    wanted = (
        *(
            "/made",
            "/extension",
            "/src/run.py",
            "/src/cog.yaml",
            "/src/.cog/openapi_schema.json",
            "/src/weights/big [1].bin",
        ),
        *("/src/other/deep/w", "/etc/ssl/certs/ca-certificates.crt"),
    )

    async def build(gateway: Gateway) -> GatewayResult:
        frozen = await gateway.solve("dockerfile.v0", contexts | {"target": FREEZE_STAGE})
        assert frozen.ref is not None
        built["freeze"] = (await frozen.ref.read_file(FREEZE_FILE)).decode()
        result = await gateway.solve("dockerfile.v0", contexts)
        assert result.ref is not None
        built["config"] = json.loads(result.metadata["containerimage.config"])["config"]
        for path in wanted:
            content = (await result.ref.read_file(path)).decode()
            built["files"][path] = content.strip() if path == "/made" else content
        return result

    mounts = (
        LocalMount("context", project, exclude_patterns=("weights", "other")),
        LocalMount("cog_weights", project),
        LocalMount("cog_build", build_dir),
        LocalMount("dockerfile", dockerfile_dir),
    )
    async with await AsyncClient.connect(address) as client:
        await client.solve(SolveRequest(mounts=mounts), build=build)
    return built
