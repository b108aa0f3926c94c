"""CUDA, cuDNN, torch, TensorFlow and base images: the choices are Cog's."""

from __future__ import annotations

import pytest

from cogkit.errors import ConfigError
from cogkit.project import compat
from cogkit.project.compat import Resolved, Version, choose_cuda, cog_base_tag, cuda_base_image, resolve_requirement
from cogkit.project.requirements import Requirement


def requirements(*texts: str) -> tuple[Requirement, ...]:
    return tuple(Requirement(text, f"r.txt:{number}") for number, text in enumerate(texts, start=1))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("12", Version(12, 0, None, "")),
        ("12.8", Version(12, 8, None, "")),
        ("2.7.1+cu128", Version(2, 7, 1, "cu128")),
        ("2.7.1.0", None),
        ("2.7.0rc1", None),
        ("2.7.*", None),
        ("", None),
        ("²", None),
    ],
)
def test_versions(text: str, version: Version | None) -> None:
    assert Version.parse(text) == version


@pytest.mark.parametrize(
    ("cuda", "cudnn", "image"),
    [
        ("11.8", "8", "nvidia/cuda:11.8.0-cudnn8-devel-ubuntu22.04"),
        ("12.6", "9", "nvidia/cuda:12.6.3-cudnn-devel-ubuntu24.04"),
        ("12.6.1", "9", "nvidia/cuda:12.6.1-cudnn-devel-ubuntu24.04"),
        ("12.3", "9", "nvidia/cuda:12.3.2-cudnn9-devel-ubuntu22.04"),
    ],
)
def test_the_cuda_image_is_the_newest_patch_on_the_newest_ubuntu(cuda: str, cudnn: str, image: str) -> None:
    assert cuda_base_image(cuda, cudnn) == image


def test_a_cuda_without_image_says_which_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no matching base image for CUDA 9\.0 and CuDNN 8") as caught:
        cuda_base_image("9.0", "8")
    assert "11.8, 12.0" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("torch", "cudas"),
    [
        ("2.7.1", ("11.8", "12.6", "12.8")),
        ("2.7.1+cu126", ("12.6",)),
        ("2.7.1+cu999", ("11.8", "12.6", "12.8")),
        ("2.7.1+cpu", ("11.8", "12.6", "12.8")),
        ("2.0.1", ("11.7", "11.8")),
        ("2.7", ("11.8", "11.8", "12.6", "12.6", "12.8", "12.8")),
        ("0.4.1", ()),
    ],
)
def test_the_cudas_of_a_torch(torch: str, cudas: tuple[str, ...]) -> None:
    # A suffix that names no CUDA with a build says nothing, as in Cog.
    assert compat.torch_cudas(torch) == cudas


@pytest.mark.parametrize(
    ("lines", "cuda", "cudnn", "chosen"),
    [
        ((), "", "", ("11.8", "8", 0)),
        ((), "12.1", "", ("12.1", "8", 0)),
        (("torch==2.7.1",), "", "", ("12.8", "9", 0)),
        (("torch==2.0.1",), "", "", ("11.8", "8", 0)),
        (("torch==1.12.1",), "", "", ("11.6", "8", 0)),
        (("torch==2.7.1",), "12.6", "", ("12.6", "9", 0)),
        (("torch==2.7.1",), "12.6.1", "", ("12.6.1", "9", 0)),
        (("torch==2.7.1",), "12.2", "", ("12.2", "8", 1)),
        (("torch==0.4.1",), "11.8", "", ("11.8", "8", 1)),
        (("tensorflow==2.15.0",), "", "", ("12.2", "8", 0)),
        (("tensorflow==2.12.0",), "11.8", "", ("11.8", "8", 0)),
        (("tensorflow==2.12.0",), "11.7", "", ("11.7", "8", 1)),
        (("tensorflow==2.12.1",), "11.8", "", ("11.8", "8", 1)),
        (("tensorflow==2.15.0", "torch==2.7.1"), "", "", ("12.2", "8", 0)),
        # Older than the tables, or not pinned: the user's CUDA is taken.
        (("torch==1.7.1",), "11.8", "8", ("11.8", "8", 1)),
        (("tensorflow==1.15",), "11.8", "", ("11.8", "8", 1)),
        (("tensorflow==1.15",), "11.8", "8", ("11.8", "8", 1)),
        (("torch",), "12.1", "", ("12.1", "8", 1)),
        (("torch", "tensorflow==2.15.0"), "12.2", "", ("12.2", "8", 0)),
    ],
)
def test_cuda_and_cudnn_are_chosen_from_the_frameworks(
    lines: tuple[str, ...], cuda: str, cudnn: str, chosen: tuple[str, str, int]
) -> None:
    result = choose_cuda(cuda, cudnn, requirements(*lines))
    assert (result.cuda, result.cudnn, len(result.warnings)) == chosen


@pytest.mark.parametrize(
    ("lines", "cuda", "cudnn", "message"),
    [
        (("torch",), "", "", "torch version must be specified when using CUDA"),
        (("torch==0.4.1",), "", "", "doesn't know what CUDA version is compatible with torch==0.4.1"),
        (("tensorflow==2.12.1",), "", "", "doesn't know what CUDA version is compatible with tensorflow==2.12.1"),
        (("tensorflow==1.15",), "11.8", "9", "the specified CUDA version 11.8 is not compatible with CuDNN 9"),
        (("torch",), "15.0", "", "CUDA 15.0 is not supported by Cog"),
        (("tensorflow==2.15.0",), "11.8", "", "TensorFlow 2.15.0 is incompatible with CUDA 11.8"),
        (("tensorflow==2.15.0",), "", "9", "the specified cuDNN version 9 is not compatible with tensorflow==2.15.0"),
        ((), "11.8", "9", "the specified CUDA version 11.8 is not compatible with CuDNN 9"),
        ((), "15.0", "", "CUDA 15.0 is not supported by Cog"),
    ],
)
def test_what_cannot_go_together_is_refused(lines: tuple[str, ...], cuda: str, cudnn: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        choose_cuda(cuda, cudnn, requirements(*lines))
    assert message in caught.value.message


def test_a_doubt_names_a_better_version() -> None:
    (warning,) = choose_cuda("12.2", "", requirements("torch==2.7.1")).warnings
    assert warning.endswith("Try 12.8 instead?")


@pytest.mark.parametrize(
    ("text", "gpu", "cuda", "resolved"),
    [
        ("numpy==1.26.4", False, "", Resolved("numpy==1.26.4")),
        ("numpy==1.26.4 ; python_version<'3.13'", False, "", Resolved("numpy==1.26.4 ; python_version<'3.13'")),
        ("torch", False, "", Resolved("torch")),
        ("torch>=2", False, "", Resolved("torch>=2")),
        ("torch==2.7.1", False, "", Resolved("torch==2.7.1", (), ("https://download.pytorch.org/whl/cpu/",))),
        ("torch==2.7.1 ; os_name=='posix'", False, "", Resolved(
            "torch==2.7.1 ; os_name=='posix'", (), ("https://download.pytorch.org/whl/cpu/",)
        )),
        ("torch==0.4.1", False, "", Resolved("torch==0.4.1")),
        ("torchvision==0.22.1", False, "", Resolved(
            "torchvision==0.22.1", (), ("https://download.pytorch.org/whl/cpu/",)
        )),
        ("torchvision==0.14.1", False, "", Resolved(
            "torchvision==0.14.1+cpu", (), ("https://download.pytorch.org/whl/cpu/",)
        )),
        ("torchaudio==2.7.1", False, "", Resolved("torchaudio==2.7.1")),
        ("torch==2.7.1", True, "12.8", Resolved("torch==2.7.1", (), ("https://download.pytorch.org/whl/cu128/",))),
        ("torch==2.7.1", True, "12.7", Resolved("torch==2.7.1", (), ("https://download.pytorch.org/whl/cu126/",))),
        ("torch==2.7.1", True, "11.0", Resolved("torch==2.7.1")),
        ("torch==2.7", True, "12.8", Resolved("torch==2.7.1", (), ("https://download.pytorch.org/whl/cu128/",))),
        ("torch==2.0.1", True, "11.7", Resolved("torch==2.0.1")),
        ("torch==2.0.1+cu118", True, "11.8", Resolved("torch==2.0.1", (), ("https://download.pytorch.org/whl/cu118/",))),
        ("torchvision==0.14.1", True, "11.7", Resolved(
            "torchvision==0.14.1", (), ("https://download.pytorch.org/whl/cu117/",)
        )),
        ("tensorflow==2.15.0", True, "12.2", Resolved("tensorflow==2.15.0")),
        ("torch==2.7.1 --extra-index-url=https://x", True, "12.8", Resolved("torch==2.7.1", (), ("https://x",))),
        ("torch==2.7.1 --find-links=https://x", True, "12.8", Resolved(
            "torch==2.7.1", ("https://x",), ("https://download.pytorch.org/whl/cu128/",)
        )),
        ("./torch-2.7.1.zip", True, "12.8", Resolved("./torch-2.7.1.zip")),
    ],
)  # fmt: skip
def test_what_is_installed_for_a_line(text: str, gpu: bool, cuda: str, resolved: Resolved) -> None:
    assert resolve_requirement(Requirement(text, "r.txt:1"), gpu=gpu, cuda=cuda) == resolved


def test_a_torchvision_without_build_for_the_cuda_is_doubted() -> None:
    resolved = resolve_requirement(Requirement("torchvision==0.22.1", "r.txt:1"), gpu=True, cuda="11.0")
    assert resolved.text == "torchvision==0.22.1"
    assert "CUDA 11.0 is compatible with torchvision 0.22.1" in (resolved.warning or "")


def test_an_archive_whose_name_starts_with_a_package_is_not_that_package() -> None:
    assert compat.framework_version("torch", requirements("torch==2.7.1 source.tar.gz")) is None
    assert compat.framework_version("torch", requirements("numpy", "torch==2.7.1")) == "2.7.1"


@pytest.mark.parametrize(
    ("cuda", "python", "torch", "tag"),
    [
        ("", "3.12", "", "python3.12"),
        ("", "3.11", "2.4.1", "python3.11-torch2.4.1"),
        ("12.8", "3.12", "", "cuda12.8-python3.12"),
        ("12.8", "3.12", "2.7.1", "cuda12.8-python3.12-torch2.7.1"),
        ("12.8.1", "3.12.4", "2.7.1+cu128", "cuda12.8-python3.12-torch2.7.1"),
        ("11.8", "3.10", "2.0", "cuda11.8-python3.10-torch2.0.1"),
        ("11.7", "3.10", "1.13.0", "cuda11.7-python3.10"),
        ("11.7", "3.10", "1.13.1", "cuda11.7-python3.10"),
    ],
)
def test_cog_base_images_are_named_as_cog_names_them(cuda: str, python: str, torch: str, tag: str) -> None:
    assert cog_base_tag(cuda, python, torch) == tag


@pytest.mark.parametrize(("cuda", "python"), [("12.2", "3.12"), ("", "3.9"), ("", ""), ("", "4.0")])
def test_combinations_without_base_image_are_told(cuda: str, python: str) -> None:
    with pytest.raises(ConfigError, match="unsupported base image configuration"):
        cog_base_tag(cuda, python, "")


def test_the_facts_are_whole() -> None:
    assert len(compat.cuda_images()) > 80
    assert len(compat.torch_builds()) > 80
    assert len(compat.tensorflow_releases()) > 15
    for build in compat.torch_builds():
        assert Version.parse(build.torch) is not None
        assert Version.parse(build.torchvision) is not None
        assert build.pythons
    # Every CUDA that a framework is built for has an image with a cuDNN.
    for cuda in {build.cuda for build in compat.torch_builds() if build.cuda}:
        assert cuda_base_image(cuda, compat.latest_cudnn(cuda))


@pytest.mark.parametrize(
    ("lines", "python", "count"),
    [
        (("torch==2.0.1",), "3.11", 0),
        # The table has the Pythons of Cog's base images; there are wheels for others.
        (("torch==1.13.1",), "3.11", 0),
        (("torch==2.5.1",), "3.13", 0),
        (("tensorflow==2.15.0",), "3.12.1", 1),
        (("torch==0.4.1",), "3.12", 0),
        (("torch",), "3.12", 0),
        ((), "3.12", 0),
    ],
)
def test_frameworks_without_wheels_for_the_python_are_warned_of(
    lines: tuple[str, ...], python: str, count: int
) -> None:
    assert len(compat.python_warnings(python, requirements(*lines))) == count


@pytest.mark.parametrize(
    ("lines", "python"),
    [
        ((), "3.13"),
        (("torch",), "3.13"),
        (("torch==2.0.1+cu118",), "3.11"),
        (("torch==2.11.0",), "3.13"),
        (("torch>=2.0.1",), "3.13"),
        (("torch==0.4.1",), "3.13"),
        (("numpy", "tensorflow==2.15.0"), "3.11"),
        (("tensorflow==2.4.0",), "3.13"),
    ],
)
def test_a_project_without_python_gets_the_newest_that_its_frameworks_have(lines: tuple[str, ...], python: str) -> None:
    chosen, reason = compat.choose_python(("3.10", "3.11", "3.12", "3.13"), requirements(*lines))
    assert chosen == python
    assert reason.startswith("the newest that Cog knows")
