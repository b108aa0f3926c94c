"""``cogkit doctor``: what it finds, and that a fix changes what it says and nothing else."""

from __future__ import annotations

import os
import stat
import textwrap
from pathlib import Path

import pytest

from cogkit.atomic_file import NewFile
from cogkit.building.doctor import CheckResult, Surroundings, find_dotcog, find_gpu, find_logins, run_checks
from cogkit.cli.main import main
from cogkit.project.doctor import edits
from cogkit.project.doctor.findings import CannotFixError
from cogkit.project.doctor.python_checks import fix_deprecated_imports, fix_pydantic_workarounds
from cogkit.project.doctor.sources import ProjectSources
from cogkit.project.dotcog import DotCog

RUN = 'build:\n  python_version: "3.11"\nrun: "run.py:Runner"\n'
PREDICT = 'build:\n  python_version: "3.11"\npredict: "predict.py:Predictor"\n'
RUNNER = """\
from cog import BaseRunner


class Runner(BaseRunner):
    def run(self, text: str) -> str:
        return "hello " + text
"""
PREDICTOR = RUNNER.replace("Runner", "Predictor").replace("def run", "def predict")


@pytest.fixture(autouse=True)
def _no_builder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COG_SKIP_DOCKER_CHECK", "1")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-docker"))
    monkeypatch.delenv("DOCKER_AUTH_CONFIG", raising=False)


def write(folder: Path, **files: str) -> Path:
    project = folder / "project"
    for name, text in files.items():
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return project


def doctor(project: Path, *flags: str) -> int:
    return main(["doctor", *flags, str(project)])


def sources(project: Path) -> ProjectSources:
    return ProjectSources.read(project, project / "cog.yaml")


def results(project: Path, *, fix: bool = False) -> dict[str, CheckResult]:
    found = run_checks(project, project / "cog.yaml", Surroundings(), fix=fix)
    return {result.check.description: result for result in found}


def snapshot(project: Path) -> dict[str, bytes]:
    return {str(path.relative_to(project)): path.read_bytes() for path in project.rglob("*") if path.is_file()}


# ---- as Cog's own tests have it


def test_a_clean_project_has_no_issues(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(write(tmp_path, **{"cog.yaml": RUN, "run.py": RUNNER})) == 0
    err = capsys.readouterr().err
    assert "experimental" in err and "no issues found" in err


def test_deprecated_fields_are_warnings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = PREDICT.replace("predict:", "  python_packages:\n    - torch==2.0.0\npredict:")
    assert doctor(write(tmp_path, **{"cog.yaml": text, "predict.py": PREDICTOR})) == 0
    err = capsys.readouterr().err
    assert "python_packages" in err and "deprecated" in err and "warnings." in err


@pytest.mark.parametrize(
    ("cog_yaml", "files", "words"),
    [
        (PREDICT, {}, ["predict.py not found", "Create predict.py or update the predict field in cog.yaml"]),
        (
            PREDICT.replace(":Predictor", ":DoesNotExist"),
            {"predict.py": PREDICTOR},
            ['class "DoesNotExist" not found in predict.py; found: Predictor'],
        ),
        (RUN, {"run.py": "class Runner(:\n"}, ["cannot parse run.py: line 1"]),
        ("build: [\n", {}, ["cog.yaml has invalid YAML"]),
        (RUN + "gpu: true\n", {"run.py": RUNNER}, ["cog.yaml validation failed"]),
        (RUN, {"run.py": RUNNER.replace("text: str", "text")}, ["run.py:5"]),
    ],
)
def test_errors_end_with_code_1_and_say_what_to_do(
    cog_yaml: str, files: dict[str, str], words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = write(tmp_path, **{"cog.yaml": cog_yaml, **files})
    before = snapshot(project)
    assert doctor(project, "--fix") == 1
    err = capsys.readouterr().err
    assert all(word in err for word in words), err
    assert "(no auto-fix available)" not in err
    assert snapshot(project) == before


def test_a_schema_that_cannot_be_made_is_not_called_good(tmp_path: Path) -> None:
    project = write(tmp_path, **{"cog.yaml": RUN, "run.py": "class Runner(:\n"})
    finding = results(project)["Model schema"].findings[0]
    assert finding.message == "not checked, because what it refers to cannot be read"
    (project / "cog.yaml").write_text("build: [\n")
    assert "not checked" in results(project)["Model schema"].findings[0].message


def test_what_a_build_evaluates_in_the_image_is_told(tmp_path: Path) -> None:
    source = "import os\n" + RUNNER.replace("text: str", "text: str = os.sep")
    finding = results(write(tmp_path, **{"cog.yaml": RUN, "run.py": source}))["Model schema"].findings[0]
    assert finding.message == "a build evaluates this in the image: `os.sep` of parameter 'text'"
    assert finding.place.startswith("run.py:")


def test_a_function_may_be_the_runner(tmp_path: Path) -> None:
    text = RUN.replace(":Runner", ":run")
    assert doctor(write(tmp_path, **{"cog.yaml": text, "run.py": "def run(text: str) -> str:\n    return text\n"})) == 0


def test_a_missing_annotation_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = "class T:\n    def train(self, n: int):\n        return 1\n"
    doctor(write(tmp_path, **{"cog.yaml": RUN + "train: train.py:T\n", "run.py": RUNNER, "train.py": train}))
    assert "T.train() is missing a return type annotation" in capsys.readouterr().err


def test_no_project_is_a_usage_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor(tmp_path) == 2
    assert "cog.yaml" in capsys.readouterr().err


# ---- deprecated imports

DEPRECATED = """\
import warnings  # loud
from cog import BaseRunner
from cog.types import ExperimentalFeatureWarning

warnings.filterwarnings("ignore", category=ExperimentalFeatureWarning)

# kept


class Runner(BaseRunner):
    def run(self, text: str) -> str:
        return "hello " + text
"""


def test_deprecated_imports_and_calls_about_them_go_and_all_else_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = DEPRECATED.replace("import warnings  # loud", "import warnings")
    project = write(tmp_path, **{"cog.yaml": RUN, "run.py": text})
    assert doctor(project) == 1
    assert "ExperimentalFeatureWarning was removed in cog 0.17" in capsys.readouterr().err
    assert doctor(project, "--fix") == 0
    assert "Fixed: Deprecated imports" in capsys.readouterr().err
    assert (project / "run.py").read_text() == "from cog import BaseRunner\n\n\n# kept\n\n\n" + text[
        text.index("class") :
    ]
    assert doctor(project) == 0


def test_one_of_several_imported_names_goes_alone(tmp_path: Path) -> None:
    text = RUNNER.replace(
        "from cog import BaseRunner",
        "from cog import BaseRunner\nfrom cog.types import (\n    Path,  # one\n    ExperimentalFeatureWarning,\n)",
    )
    project = write(tmp_path, **{"cog.yaml": RUN, "run.py": text})
    fix_deprecated_imports(sources(project))
    assert "from cog.types import (\n    Path,  # one\n)\n" in (project / "run.py").read_text()
    assert "Experimental" not in (project / "run.py").read_text()


@pytest.mark.parametrize(
    "text",
    [
        DEPRECATED,  # a comment is on the line that would go
        DEPRECATED.replace("  # loud", "") + "\n\ndef more():\n    raise ExperimentalFeatureWarning\n",
        DEPRECATED.replace("  # loud", "").replace("warnings.filter", "x = warnings.filter"),
        DEPRECATED.replace("import warnings  # loud", "import warnings; import os"),
        "# -*- coding: latin-1 -*-\n" + DEPRECATED.replace("  # loud", ""),
    ],
    ids=["comment", "used in a function", "assigned", "shared line", "still fine"],
)
def test_what_cannot_be_removed_without_more_is_refused_and_nothing_changes(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = write(tmp_path, **{"cog.yaml": RUN, "run.py": text})
    before = snapshot(project)
    code = doctor(project, "--fix")
    if text.startswith("# -*-"):
        assert code == 0
        return
    assert code == 1
    assert "Deprecated imports: " in capsys.readouterr().err
    assert snapshot(project) == before


# ---- pydantic

PYDANTIC = """\
from cog import BaseRunner, Path
from pydantic import BaseModel, ConfigDict


class Outputs(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    audio: Path


class Runner(BaseRunner):
    def run(self, text: str) -> Outputs:
        return Outputs(audio="a.wav")
"""


def test_pydantic_base_model_becomes_cogs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = write(tmp_path, **{"cog.yaml": RUN, "run.py": PYDANTIC})
    assert doctor(project) == 1
    assert "Outputs inherits from pydantic.BaseModel with arbitrary_types_allowed; use cog.BaseModel" in (
        capsys.readouterr().err
    )
    assert doctor(project, "--fix") == 0
    text = (project / "run.py").read_text()
    assert text.startswith(
        "from cog import BaseRunner, Path, BaseModel\n\n\nclass Outputs(BaseModel):\n    audio: Path\n"
    )
    assert "pydantic" not in text and "ConfigDict" not in text
    assert doctor(project) == 0


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        (
            "from pydantic import BaseModel, ConfigDict\n\nclass Own(BaseModel):\n    a: int\n",
            ["from pydantic import BaseModel\n", "Path, BaseModel as CogBaseModel\n", "class Outputs(CogBaseModel):"],
        ),
        (
            "import pydantic\nfrom pydantic import ConfigDict\nBM = 1\n",
            ["from cog import BaseRunner, Path, BaseModel\nBM = 1\n", "class Outputs(BaseModel):"],
        ),
        (
            "from pydantic import BaseModel as PBM, ConfigDict, Field\nF = Field\n",
            ["import Field\n", "class Outputs(BaseModel):"],
        ),
    ],
    ids=["another class", "by module", "by another name"],
)
def test_other_uses_of_pydantic_stay(before: str, expected: list[str], tmp_path: Path) -> None:
    text = PYDANTIC.replace("from pydantic import BaseModel, ConfigDict\n", before)
    base = "pydantic.BaseModel" if "import pydantic" in before else "PBM" if "PBM" in before else "BaseModel"
    text = text.replace("class Outputs(BaseModel)", f"class Outputs({base})")
    project = write(tmp_path, **{"cog.yaml": RUN, "run.py": text})
    fix_pydantic_workarounds(sources(project))
    fixed = (project / "run.py").read_text()
    assert all(part in fixed for part in expected), fixed
    compile(fixed, "run.py", "exec")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("allowed=True)", "allowed=True, frozen=True)"),
        ("    audio: Path", "    audio: Path = Field()"),
        ("    audio: Path\n", ""),
    ],
    ids=["more settings", "fields", "nothing left"],
)
def test_classes_that_use_more_of_pydantic_are_left_to_people(old: str, new: str, tmp_path: Path) -> None:
    text = PYDANTIC.replace("ConfigDict\n", "ConfigDict, Field\n", 1).replace(old, new)
    project = write(tmp_path, **{"cog.yaml": RUN, "run.py": text})
    with pytest.raises(CannotFixError):
        fix_pydantic_workarounds(sources(project))
    assert (project / "run.py").read_text() == text


# ---- from predict to run


def test_an_old_project_is_migrated_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "# mine\n" + PREDICT.rstrip() + "  # the model\nenvironment: []\n"
    project = write(
        tmp_path, **{"cog.yaml": text, "predict.py": PREDICTOR + '\nif __name__ == "__main__":\n    Predictor()\n'}
    )
    (project / "predict.py").chmod(0o755)
    assert doctor(project) == 0
    err = capsys.readouterr().err
    assert "Deprecated predict interface names" in err and "predict in cog.yaml is deprecated" in err
    assert doctor(project, "--fix") == 0
    assert "Fixed: Deprecated predict interface names" in capsys.readouterr().err
    assert sorted(snapshot(project)) == ["cog.yaml", "run.py"]
    assert (project / "cog.yaml").read_text() == text.replace('predict: "predict.py:Predictor"', 'run: "run.py:Runner"')
    assert (project / "run.py").read_text() == RUNNER + '\nif __name__ == "__main__":\n    Runner()\n'
    assert stat.S_IMODE((project / "run.py").stat().st_mode) == 0o755
    assert doctor(project) == 0
    assert "no issues found" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"run.py": "mine"}, "cannot migrate predict.py to run.py because run.py already exists"),
        ({"tests/test_it.py": "from predict import Predictor\n"}, "tests/test_it.py imports predict"),
        ({"predict.py": PREDICTOR + "\nclass Runner: ...\n"}, "uses the name Runner already"),
        ({"predict.py": PREDICTOR + "\n    def again(self):\n        self.predict('')\n"}, "calls predict()"),
        ({"predict.py": PREDICTOR.replace("cog import", "elsewhere import")}, "unambiguous BasePredictor imports"),
        (
            {
                "predict.py": PREDICTOR.replace("import BasePredictor", "import BasePredictor as B").replace(
                    "(BaseP", "(B #"
                )
            },
            "",
        ),
        (
            {"predict.py": PREDICTOR.replace("BasePredictor", "B").replace("import B", "import BasePredictor as B")},
            "aliased BasePredictor",
        ),
    ],
)
def test_what_is_not_the_old_starter_is_left_to_people(
    files: dict[str, str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = write(tmp_path, **{"cog.yaml": PREDICT, "predict.py": PREDICTOR, **files})
    before = snapshot(project)
    assert doctor(project, "--fix") == 1
    assert words in capsys.readouterr().err
    assert snapshot(project) == before


def test_a_migration_that_breaks_off_leaves_a_project_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = write(tmp_path, **{"cog.yaml": PREDICT, "predict.py": PREDICTOR})
    before = snapshot(project)
    replace = NewFile.replace

    def full(file: NewFile, name: str) -> None:
        if name == "cog.yaml":
            raise OSError(28, "No space left on device")
        replace(file, name)

    monkeypatch.setattr(NewFile, "replace", full)
    assert results(project, fix=True)["Deprecated predict interface names"].problem
    assert snapshot(project) == before


def test_a_file_that_somebody_edits_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    project = write(tmp_path, **{"cog.yaml": RUN, "run.py": PYDANTIC})
    read = sources(project)
    (project / "run.py").write_text(PYDANTIC + "# newer\n")
    with pytest.raises(CannotFixError, match="changed meanwhile"):
        fix_pydantic_workarounds(read)
    assert (project / "run.py").read_text().endswith("# newer\n")


def test_a_link_stays_a_link_when_its_target_is_fixed(tmp_path: Path) -> None:
    project = write(tmp_path, **{"cog.yaml": RUN, "real.py": PYDANTIC})
    (project / "run.py").symlink_to("real.py")
    fix_pydantic_workarounds(sources(project))
    assert (project / "run.py").is_symlink()
    assert "pydantic" not in (project / "real.py").read_text()


@pytest.mark.parametrize("data", [b"\xef\xbb\xbfa = 1\n", b"a = 1\rb = 2\n", b"# \xff\n", b"a = 1\n\x0cb = 2\n"])
def test_positions_that_would_not_be_those_of_the_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(CannotFixError):
        edits.PythonText("run.py", data)


# ---- the surroundings


def test_who_builds_now_is_told_and_a_bad_cog_dir_is_an_error(tmp_path: Path) -> None:
    project = write(tmp_path, **{"cog.yaml": RUN, "run.py": RUNNER})
    with DotCog.open(project) as dotcog, dotcog.lock():
        (holder,) = find_dotcog(sources(project))
        assert "a build of the project is running" in holder.message and str(os.getpid()) in holder.message
    assert find_dotcog(sources(project)) == []
    other = write(tmp_path / "other", **{"cog.yaml": RUN, "run.py": RUNNER})
    (other / ".cog").symlink_to(tmp_path)
    result = results(other)["Project folder"]
    assert result.errors == 1 and "link" in result.findings[0].message


def test_logins_that_cannot_work_are_warnings(tmp_path: Path) -> None:
    environ = {"DOCKER_CONFIG": str(tmp_path), "PATH": ""}
    assert find_logins(environ) == []
    (tmp_path / "config.json").write_text('{"credsStore": "absent"}')
    assert "docker-credential-absent" in find_logins(environ)[0].message
    (tmp_path / "config.json").write_text("{")
    assert "a registry login is not used" in find_logins(environ)[0].message


def test_a_torch_without_kernels_for_this_gpu_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\nprintf '12.0\\n8.6\\n[N/A]\\n'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    text = textwrap.dedent("""\
        build:
          python_version: "3.11"
          gpu: true
          python_packages: [torch==2.4.1]
        run: run.py:Runner
    """)
    read = sources(write(tmp_path, **{"cog.yaml": text, "run.py": RUNNER}))
    (finding,) = find_gpu(read, {})
    assert "ships no kernels for sm_120" in finding.message
    assert find_gpu(read, {"COG_SKIP_GPU_CHECK": "1"}) == []


def test_of_a_dockerfile_builder_and_logins_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    assert main(["doctor", str(tmp_path)]) == 0
    shown = capsys.readouterr().err
    assert "Builder" in shown and "Registry logins" in shown and "no issues found" in shown
    assert "cog.yaml" not in shown


def test_the_builder_is_asked_with_the_tls_files_that_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COG_SKIP_DOCKER_CHECK")
    (tmp_path / "Dockerfile").write_text("FROM scratch\n")
    missing = tmp_path / "ca.pem"
    assert main(["doctor", "--addr", "tcp://127.0.0.1:1", "--tlscacert", str(missing), str(tmp_path)]) == 1
    assert "CA certificate" in capsys.readouterr().err
