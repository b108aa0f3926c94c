"""Generating: what the golden cases do not show."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cogkit.dockerfile import GenerateOptions, cog_base_image, generate
from cogkit.errors import ConfigError
from cogkit.project.config import Config, parse_config

BUILD = 'build:\n  python_version: "3.11"\n'
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def config(text: str = BUILD, project: Path = Path(".")) -> Config:
    return parse_config(text, project_dir=project)


def test_a_build_needs_a_python_version() -> None:
    with pytest.raises(ConfigError, match="python_version is required") as caught:
        generate(config("image: a\n"))
    assert caught.value.where == "cog.yaml"


def test_generating_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("six\n./a.whl\n")
    (tmp_path / "a.whl").write_bytes(b"")
    before = sorted(tmp_path.rglob("*"))
    generated = generate(config(BUILD + "  python_requirements: requirements.txt\n", tmp_path))
    assert sorted(tmp_path.rglob("*")) == before
    assert [file.path for file in generated.files] == ["local_package_artifacts/a.whl", "requirements.txt"]


def test_the_environment_is_only_read_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COG_SDK_WHEEL", "pypi:0.20.0")
    monkeypatch.setenv("COG_CA_CERT", PEM)
    assert "0.20.0" not in generate(config()).dockerfile
    assert "cog-ca-cert" not in generate(config()).dockerfile


def test_options_from_the_environment() -> None:
    environ = {"COG_SDK_WHEEL": "pypi:0.20.0", "COGLET_WHEEL": "pypi:0.21.0", "COG_CA_CERT": PEM, "HOME": "/root"}
    options = GenerateOptions.from_environment(environ, strip=True)
    assert options == GenerateOptions(
        cog_sdk_wheel="pypi:0.20.0", coglet_wheel="pypi:0.21.0", ca_cert=PEM.encode(), strip=True
    )
    assert GenerateOptions.from_environment(environ, cog_sdk_wheel="pypi").cog_sdk_wheel == "pypi"


def test_a_build_without_staged_files_needs_no_context() -> None:
    assert generate(config()).contexts == frozenset()
    assert generate(config(), GenerateOptions(weights=("w",))).contexts == {"cog_weights"}
    assert generate(config(), GenerateOptions(bundle=("openapi_schema.json",))).contexts == {"cog_build"}


def test_the_base_image_is_told() -> None:
    assert generate(config()).base_image == "python:3.11-slim"
    assert generate(config(BUILD + "  gpu: true\n")).base_image == "nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04"
    reference = cog_base_image(config(), "registry.example.com")
    assert reference == "registry.example.com/cog-base:python3.11"
    assert generate(config(), GenerateOptions(cog_base_image=reference)).base_image == reference


def test_a_combination_without_cog_base_image_is_told() -> None:
    with pytest.raises(ConfigError, match=r"CUDA: 12\.2 / Python: 3\.11 / Torch: \(none\)"):
        cog_base_image(config(BUILD + '  gpu: true\n  cuda: "12.2"\n'))


def test_a_cuda_that_has_no_image_is_told_at_its_line() -> None:
    with pytest.raises(ConfigError, match=r"no matching base image for CUDA 12\.8 and CuDNN 5") as caught:
        generate(config(BUILD + '  gpu: true\n  cudnn: "5"\n  python_packages: ["torch==2.7.1"]\n'))
    assert caught.value.where == "cog.yaml:4:10"


def test_a_cudnn_that_tensorflow_asks_for_is_explained() -> None:
    with pytest.raises(ConfigError, match=r"no matching base image for CUDA 12\.4 and CuDNN 8") as caught:
        generate(config(BUILD + '  gpu: true\n  cuda: "12.4"\n  python_packages: ["tensorflow==2.16.1"]\n'))
    assert caught.value.hint == (
        'tensorflow 2.16.1 asks for CuDNN 8. CUDA 12.4 has CuDNN 9. Set cuda: "12.3" or leave it out.'
    )


def test_an_sdk_too_old_is_told_at_its_line() -> None:
    with pytest.raises(ConfigError, match=r"cog version 0\.15\.0 is below the minimum") as caught:
        generate(config(BUILD + "  sdk_version: 0.15.0\n"))
    assert caught.value.where == "cog.yaml:3:16"


def test_a_coglet_wheel_as_sdk_needs_a_plain_python_version() -> None:
    options = GenerateOptions(cog_sdk_wheel="https://example.com/coglet-0.1.0-py3-none-any.whl")
    with pytest.raises(ConfigError, match=r"Python version must be <major>\.<minor> for coglet"):
        generate(config('build:\n  python_version: "3.11.4"\n'), options)


def test_a_folder_called_coglet_makes_no_coglet_of_a_cog_wheel() -> None:
    options = GenerateOptions(cog_sdk_wheel="https://example.com/coglet/cog-0.22.0-py3-none-any.whl")
    assert "R8_COG_VERSION" not in generate(config(), options).dockerfile


def test_where_wheels_come_from_is_noted(tmp_path: Path) -> None:
    wheel = tmp_path / "cog-0.22.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    generated = generate(config(), GenerateOptions(cog_sdk_wheel=str(wheel)))
    assert generated.notes == (f"Using local cog wheel: {wheel}",)
    assert [(file.path, file.source) for file in generated.files] == [(wheel.name, wheel)]


def test_two_files_cannot_take_one_name(tmp_path: Path) -> None:
    wheel = tmp_path / "requirements.txt"
    wheel.write_bytes(b"")
    with pytest.raises(ConfigError, match=r"both called requirements\.txt"):
        generate(config(BUILD + "  python_packages: [six]\n"), GenerateOptions(cog_sdk_wheel=str(wheel)))


def test_a_wheel_that_the_sdk_variable_names_may_lie_anywhere(tmp_path: Path) -> None:
    # It is named by who builds, not by the project.
    (tmp_path / "project").mkdir()
    wheel = tmp_path / "cog-0.22.0-py3-none-any.whl"
    wheel.write_bytes(b"")
    generated = generate(config(BUILD, tmp_path / "project"), GenerateOptions(cog_sdk_wheel=str(wheel)))
    assert generated.files[0].inside is None


def test_a_package_outside_of_the_project_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "a.whl").write_bytes(b"")
    (tmp_path / "project" / "requirements.txt").write_text("six\n../a.whl\n")
    text = BUILD + "  python_requirements: requirements.txt\n"
    with pytest.raises(ConfigError, match="must be inside the project directory") as caught:
        generate(config(text, tmp_path / "project"))
    assert caught.value.where == "requirements.txt:2"


def test_a_local_archive_called_like_the_sdk_is_no_mention_of_the_sdk(tmp_path: Path) -> None:
    (tmp_path / "cog-1.0.zip").write_bytes(b"")
    (tmp_path / "requirements.txt").write_text("./cog-1.0.zip\n")
    generated = generate(config(BUILD + "  python_requirements: requirements.txt\n", tmp_path))
    assert generated.warnings == ()
    assert generated.files[-1].content == b"/tmp/local_package_artifacts/cog-1.0.zip\n"
    assert "RUN uv pip uninstall cog coglet" in generated.dockerfile


def test_requirements_in_a_folder_find_their_packages_beside_them(tmp_path: Path) -> None:
    (tmp_path / "deps").mkdir()
    (tmp_path / "deps" / "a.whl").write_bytes(b"")
    (tmp_path / "deps" / "r.txt").write_text("a.whl\n")
    generated = generate(config(BUILD + "  python_requirements: deps/r.txt\n", tmp_path))
    assert generated.files[-1].content == b"/tmp/local_package_artifacts/deps/a.whl\n"


def test_indexes_keep_the_order_in_which_the_requirements_name_them(tmp_path: Path) -> None:
    lines = [f"p{number}==1 --extra-index-url=https://i{number % 3}.example.com" for number in range(9)]
    (tmp_path / "r.txt").write_text("\n".join(lines))
    generated = generate(config(BUILD + "  python_requirements: r.txt\n", tmp_path))
    content = (generated.files[0].content or b"").decode().splitlines()
    assert content[:3] == [f"--extra-index-url https://i{number}.example.com" for number in range(3)]
    assert content[3:] == [f"p{number}==1" for number in range(9)]


def test_the_concurrency_of_a_decorator_can_be_put_in() -> None:
    assert "ENV COG_MAX_CONCURRENCY=7" in generate(replace(config(), concurrency_max=7)).dockerfile


def test_weights_whose_names_buildkit_cannot_take_are_told() -> None:
    with pytest.raises(ConfigError, match="BuildKit cannot be told to copy"):
        generate(config(), GenerateOptions(weights=("a*b.bin",)))


def test_the_text_ends_with_one_line_end_and_has_no_empty_lines() -> None:
    text = generate(config(BUILD + "environment: [A=b]\n")).dockerfile
    assert text.endswith("\n") and not text.endswith("\n\n")
    assert "\n\n" not in text


def test_options_that_pip_refuses_are_left_out_with_a_warning(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("six==1.16.0 --no-deps -U\ntorch==2.7.1 --no-build-isolation\n")
    generated = generate(config(BUILD + "  python_requirements: requirements.txt\n", tmp_path))
    (staged,) = (file for file in generated.files if file.path == "requirements.txt")
    assert staged.content == b"--extra-index-url https://download.pytorch.org/whl/cpu/\nsix==1.16.0\ntorch==2.7.1\n"
    assert generated.warnings == (
        "requirements.txt:1: left out --no-deps, -U, which pip refuses in a requirements file.",
        "requirements.txt:2: left out --no-build-isolation, which pip refuses in a requirements file.",
    )


@pytest.mark.parametrize("package", ["./x.whl", "x-1.0.tar.gz", ".", "-e ./lib", "-c c.txt"])
def test_packages_cannot_name_files_of_the_project(package: str) -> None:
    with pytest.raises(ConfigError) as caught:
        generate(config(BUILD + f"  python_packages: ['{package}']\n"))
    assert caught.value.where == "cog.yaml:3:20"
    assert caught.value.hint
