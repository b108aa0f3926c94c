"""What a build writes here: the same as buildctl would, whole or not at all, and clear words when it cannot."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunBuildctl, RunCogkit, StartCogkit
from tests.real.buildkitd import Buildkitd
from tests.real.cogkit_process import cogkit_environment
from tests.real.tree import File, Hardlink, Symlink

EVERYTHING = {
    "Dockerfile": "FROM scratch\nCOPY --chown=7:8 tree /tree\nCOPY tree/run /bin/\n",
    "tree/run": File("#!/bin/sh\n", 0o755),
    "tree/secret": File("s", 0o600),
    "tree/empty": "",
    "tree/twin": Hardlink("tree/run"),
    "tree/folder": None,
    "tree/to-file": Symlink("run"),
    "tree/to-outside": Symlink("../../../etc/passwd"),
    "tree/absolute": Symlink("/etc/passwd"),
    "tree/ünï côdé/日本": "text",
    "tree/large": File(bytes(range(256)) * 4096 * 3),
}
SMALL = {"Dockerfile": "FROM scratch\nCOPY f /\n", "f": "contents"}
TWO_MEGABYTES = {"Dockerfile": "FROM scratch\nCOPY big /\n", "big": File(os.urandom(2 << 20))}
MANY_MEGABYTES = {"Dockerfile": "FROM scratch\nCOPY big /\n", "big": File(b"x" * (8 << 20))}

Facts = dict[str, tuple[object, ...]]


def facts(root: Path) -> Facts:
    """Everything about a tree that a local export decides, but directories' times: buildctl sets only some of those."""
    found: Facts = {}
    inodes: dict[int, str] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        name = str(path.relative_to(root))
        twin = inodes.setdefault(status.st_ino, name)
        contents = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        target = os.readlink(path) if path.is_symlink() else ""
        time = None if path.is_dir() and not path.is_symlink() else status.st_mtime_ns
        found[name] = (oct(status.st_mode), status.st_uid, status.st_gid, time, twin, target, contents)
    return found


def members(archive: Path) -> Facts:
    with tarfile.open(archive) as tar:
        found: Facts = {}
        for member in tar:
            file = tar.extractfile(member) if member.isreg() else None
            contents = file.read() if file else b""
            owner = (member.uid, member.gid)
            found[member.name] = (member.type, oct(member.mode), owner, member.mtime, member.linkname, contents)
        return found


def digests(archive: Path) -> set[str]:
    """The blobs of an OCI or Docker archive that buildkit put there, each checked against its name."""
    with tarfile.open(archive) as tar:
        found = set()
        for member in tar:
            if member.isreg() and member.name.startswith("blobs/sha256/"):
                file = tar.extractfile(member)
                assert file is not None
                digest = hashlib.sha256(file.read()).hexdigest()
                assert member.name == f"blobs/sha256/{digest}"
                found.add(digest)
        return found


def index(archive: Path) -> dict[str, object]:
    with tarfile.open(archive) as tar:
        file = tar.extractfile("index.json")
        assert file is not None
        loaded: dict[str, object] = json.load(file)
        return loaded


def succeeded(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, done.stderr


def failed(done: subprocess.CompletedProcess[str], says: str) -> None:
    """Exit code 1 or 2, one clear sentence with ``says`` in it, and no traceback."""
    assert done.returncode in (1, 2), done.stderr
    assert re.search(says, " ".join(done.stderr.split())), done.stderr
    assert "Traceback" not in done.stderr and "Errno" not in done.stderr


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where outputs go; all that is in it is looked at."""
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


@pytest.fixture
def with_buildctl(buildctl: RunBuildctl) -> Callable[..., None]:
    """The same build with buildctl."""

    def build(project: Path, output: str, *options: str) -> None:
        sources = ("--local", f"context={project}", "--local", f"dockerfile={project}")
        buildctl("build", "--frontend", "dockerfile.v0", *sources, "--output", output, *options)

    return build


def test_local_output_is_the_tree_that_buildctl_writes(
    context_tree: MakeTree, run_cogkit: RunCogkit, with_buildctl: Callable[..., None], out: Path
) -> None:
    project = context_tree(EVERYTHING)
    succeeded(run_cogkit("build", project, "-o", f"type=local,dest={out}/ours"))
    with_buildctl(project, f"type=local,dest={out}/theirs")
    assert facts(out / "ours") == facts(out / "theirs")
    assert len(facts(out / "ours")) == 14
    assert (out / "ours").stat().st_mode == (out / "theirs").stat().st_mode


def test_local_output_into_the_last_one_is_the_same_again(
    context_tree: MakeTree, run_cogkit: RunCogkit, with_buildctl: Callable[..., None], out: Path
) -> None:
    project = context_tree(EVERYTHING)
    changed = context_tree(
        {
            "Dockerfile": "FROM scratch\nCOPY tree /tree\n",
            "tree/run": None,
            "tree/folder": "now a file",
            "tree/to-file": "now a file",
            "tree/empty": Symlink("folder"),
            "tree/more/f": "f",
        },
        name="changed",
    )
    for each in (project, changed):
        succeeded(run_cogkit("build", each, "-o", f"type=local,dest={out}/ours"))
        with_buildctl(each, f"type=local,dest={out}/theirs")
    assert facts(out / "ours") == facts(out / "theirs")


def test_local_output_of_two_platforms_has_a_folder_for_each(
    context_tree: MakeTree, run_cogkit: RunCogkit, with_buildctl: Callable[..., None], out: Path
) -> None:
    project = context_tree({**EVERYTHING, "Dockerfile": "FROM scratch\nARG TARGETARCH\nCOPY tree /$TARGETARCH\n"})
    platforms = "linux/amd64,linux/arm64"
    succeeded(run_cogkit("build", project, "--platform", platforms, "-o", f"type=local,dest={out}/ours"))
    with_buildctl(project, f"type=local,dest={out}/theirs", "--opt", f"platform={platforms}")
    assert left_in(out / "ours") == ["linux_amd64", "linux_arm64"]
    ours, theirs = facts(out / "ours"), facts(out / "theirs")
    assert ours == theirs


@pytest.mark.needs_newer_buildkit("mode=delete of local outputs")
def test_local_output_with_mode_delete_leaves_what_the_build_has(
    context_tree: MakeTree, run_cogkit: RunCogkit, out: Path
) -> None:
    (out / "old" / "deep").mkdir(parents=True)
    (out / "old" / "deep" / "file").write_text("old")
    (out / ".git").mkdir()
    succeeded(run_cogkit("build", context_tree(SMALL), "-o", f"type=local,dest={out},mode=delete"))
    assert left_in(out) == [".git", "f"], "and the repository it writes into"


def test_git_folder_in_the_result_is_written_only_if_allowed(
    context_tree: MakeTree, run_cogkit: RunCogkit, out: Path
) -> None:
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY . /\n", ".git/hooks/post-checkout": "#!/bin/sh\n"})
    done = run_cogkit("build", project, "-o", f"type=local,dest={out}/a")
    failed(done, r"\.git.*hooks or settings that git runs")
    assert "allow-git=true" in done.stderr
    assert not (out / "a" / ".git").exists()
    succeeded(run_cogkit("build", project, "-o", f"type=local,dest={out}/b,allow-git=true"))
    assert (out / "b" / ".git" / "hooks" / "post-checkout").is_file()


def test_tar_output_is_the_tar_that_buildctl_writes(
    context_tree: MakeTree, run_cogkit: RunCogkit, with_buildctl: Callable[..., None], out: Path
) -> None:
    project = context_tree(EVERYTHING)
    succeeded(run_cogkit("build", project, "-o", f"type=tar,dest={out}/ours.tar"))
    with_buildctl(project, f"type=tar,dest={out}/theirs.tar")
    assert members(out / "ours.tar") == members(out / "theirs.tar")
    assert (out / "ours.tar").read_bytes() == (out / "theirs.tar").read_bytes()


@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_image_archive_has_the_digests_that_buildctl_gets(
    kind: str, context_tree: MakeTree, run_cogkit: RunCogkit, with_buildctl: Callable[..., None], out: Path
) -> None:
    project = context_tree(EVERYTHING)
    succeeded(run_cogkit("build", project, "-o", f"type={kind},name=x/y:z,dest={out}/ours.tar"))
    with_buildctl(project, f"type={kind},name=x/y:z,dest={out}/theirs.tar")
    assert digests(out / "ours.tar") == digests(out / "theirs.tar") != set()
    ours, theirs = index(out / "ours.tar"), index(out / "theirs.tar")
    for each in (ours, theirs):
        manifests = each["manifests"]
        assert isinstance(manifests, list)
        for manifest in manifests:
            manifest.get("annotations", {}).pop("org.opencontainers.image.created", None)
    assert ours == theirs


def test_output_to_stdout_is_the_archive_and_nothing_else(
    context_tree: MakeTree, start_cogkit: StartCogkit, run_cogkit: RunCogkit, out: Path
) -> None:
    project = context_tree(EVERYTHING)
    succeeded(run_cogkit("build", project, "-o", f"type=tar,dest={out}/file.tar"))
    for output in ("-", "type=tar,dest=-"):
        with (out / "stdout.tar").open("wb") as stdout:
            process = start_cogkit("build", project, "-o", output, stdout=stdout)
            _, stderr = process.communicate(timeout=100)
        assert process.returncode == 0, stderr.decode()
        assert (out / "stdout.tar").read_bytes() == (out / "file.tar").read_bytes()


def test_several_outputs_at_once_are_what_each_is_alone(
    context_tree: MakeTree, run_cogkit: RunCogkit, with_buildctl: Callable[..., None], out: Path
) -> None:
    project = context_tree(EVERYTHING)
    kinds = ("type=oci,dest={}/oci.tar", "type=local,dest={}/tree", "type=tar,dest={}/root.tar")
    outputs = [part for kind in kinds for part in ("-o", kind.format(out))]
    succeeded(run_cogkit("build", project, *outputs))
    with_buildctl(project, f"type=local,dest={out}/theirs")
    with_buildctl(project, f"type=tar,dest={out}/theirs.tar")
    assert facts(out / "tree") == facts(out / "theirs")
    assert (out / "root.tar").read_bytes() == (out / "theirs.tar").read_bytes()
    assert digests(out / "oci.tar")


def test_thousands_of_files(context_tree: MakeTree, run_cogkit: RunCogkit, out: Path) -> None:
    """Not compared with buildctl: that of v0.32 may hang on exports of many files."""
    files = {f"tree/{number % 40}/{number}": f"{number}" * (number % 100) for number in range(4000)}
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY tree /tree\n", **files})
    succeeded(run_cogkit("build", project, "-o", f"type=local,dest={out}"))
    assert {name: entry[-1] for name, entry in facts(out).items() if name in files} == {
        name: text.encode() for name, text in files.items()
    }


# ---- outputs that cannot be written


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a tmpfs with these options, where this machine lets us."""
    mounted: list[Path] = []

    def make(options: str) -> Path:
        folder = tmp_path / f"mount{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no mount is permitted here: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield make
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("kind", ["tar", "oci"])
def test_full_disk_is_told_and_leaves_the_old_file(
    kind: str, context_tree: MakeTree, run_cogkit: RunCogkit, mount: Callable[[str], Path]
) -> None:
    folder = mount("size=1m")
    (folder / "out.tar").write_text("of the last build")
    done = run_cogkit("build", context_tree(TWO_MEGABYTES), "-o", f"type={kind},dest={folder}/out.tar")
    failed(done, r"no space left on the device of '.*/out\.tar' after [\d,]+ bytes")
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("out.tar", "of the last build")]
    assert os.statvfs(folder).f_bavail > 200, "the space is free again"


def test_full_disk_of_a_local_output_is_told_with_the_file(
    context_tree: MakeTree, run_cogkit: RunCogkit, mount: Callable[[str], Path]
) -> None:
    folder = mount("size=1m")
    done = run_cogkit("build", context_tree(TWO_MEGABYTES), "-o", f"type=local,dest={folder}/out")
    failed(done, r"no space left on the device of '.*/out/big'")
    assert left_in(folder / "out") == []


@pytest.mark.parametrize("output", ["type=tar,dest={}/out.tar", "type=local,dest={}/out", "type=local,dest={}"])
def test_read_only_place_is_told_before_the_build(
    output: str, context_tree: MakeTree, run_cogkit: RunCogkit, mount: Callable[[str], Path]
) -> None:
    folder = mount("ro")
    done = run_cogkit("build", context_tree(SMALL), "-o", output.format(folder))
    failed(done, f"'{folder}' is not writable")
    assert "#1" not in done.stderr, "nothing was built"


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("type=tar,dest={}", "is a directory"),
        ("type=oci,dest={}/file/out.tar", "is not a directory"),
        ("type=local,dest={}/file", "is not a directory"),
        ("type=local,dest=-", "standard output"),
    ],
)
def test_impossible_place_is_told_before_the_build(
    output: str, says: str, context_tree: MakeTree, run_cogkit: RunCogkit, out: Path
) -> None:
    (out / "file").write_text("mine")
    done = run_cogkit("build", context_tree(SMALL), "-o", output.format(out))
    failed(done, says)
    assert "#1" not in done.stderr, "nothing was built"
    assert (out / "file").read_text() == "mine" and left_in(out) == ["file"]


def test_two_outputs_to_one_place_are_refused(
    context_tree: MakeTree, run_cogkit: RunCogkit, start_cogkit: StartCogkit, out: Path
) -> None:
    outputs = ("-o", f"type=tar,dest={out}/f", "-o", f"type=oci,dest={out}/f")
    failed(run_cogkit("build", context_tree(SMALL), *outputs), "go to the same place")
    outputs = ("-o", "type=tar,dest=-", "-o", "type=oci,dest=-")
    failed(run_cogkit("build", context_tree(SMALL), *outputs), "more than one output goes to standard output")
    with (out / "f").open("wb") as stdout:
        build = start_cogkit("build", context_tree(SMALL), "-o", "-", "--iidfile", out / "f", stdout=stdout)
        said = build.communicate(timeout=120)[1].decode()
    assert build.returncode == 2 and "go to the same place" in said


def test_a_cache_that_cannot_be_written_costs_no_build(
    context_tree: MakeTree, run_cogkit: RunCogkit, out: Path
) -> None:
    (out / "file").write_text("mine")
    done = run_cogkit("build", context_tree(SMALL), "--cache-to", f"type=local,dest={out}/file")
    failed(done, "the cache's folder .* is not a directory")
    assert "#1" not in done.stderr, "nothing was built"
    assert (out / "file").read_text() == "mine"


def test_image_id_goes_to_what_is_there(context_tree: MakeTree, run_cogkit: RunCogkit, out: Path) -> None:
    project = context_tree(SMALL)
    (out / "real").write_text("old")
    (out / "link").symlink_to("real")
    succeeded(run_cogkit("build", project, "--iidfile", out / "link"))
    identifier = (out / "real").read_text()
    assert identifier.startswith("sha256:")
    (out / "stdout").symlink_to("/proc/self/fd/1")
    done = run_cogkit("build", project, "--progress=rawjson", "--iidfile", out / "stdout")
    succeeded(done)
    assert identifier in done.stdout
    os.link(out / "real", out / "twin")
    broken = context_tree({"Dockerfile": "FROM scratch\nCOPY missing /\n"}, name="broken")
    failed(run_cogkit("build", broken, "--iidfile", out / "link"), "missing")
    assert (out / "twin").read_text() == "", "of a failed build there is no ID"
    assert sorted(os.listdir(out)) == ["link", "real", "stdout", "twin"]


@pytest.mark.parametrize(
    ("redirected", "code"), [(">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), ("2>/dev/full", 0), (">/dev/full", 1)]
)
def test_a_build_succeeds_whatever_its_streams_are(
    redirected: str, code: int, context_tree: MakeTree, cogkit_env: dict[str, str | None], out: Path
) -> None:
    """cron and service managers close them; only what has to be printed and cannot is an error."""
    progress = "quiet" if code else "plain"
    command = f'exec "$0" -m cogkit build "$1" --progress={progress} --iidfile "$2" {redirected}'
    done = subprocess.run(
        ["sh", "-c", command, sys.executable, context_tree(SMALL), out / "id"],
        env=cogkit_environment(cogkit_env),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    if code:
        assert done.stderr.startswith("error: cannot write to standard output: "), done.stderr
    assert (out / "id").read_text().startswith("sha256:")


def test_failed_build_leaves_the_old_output(context_tree: MakeTree, run_cogkit: RunCogkit, out: Path) -> None:
    (out / "out.tar").write_text("of the last build")
    project = context_tree({"Dockerfile": "FROM scratch\nCOPY missing /\n"})
    done = run_cogkit("build", project, "-o", f"type=tar,dest={out}/out.tar", "-o", f"type=oci,dest={out}/new.tar")
    assert done.returncode == 1
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("out.tar", "of the last build")]


# ---- outputs cut short

PAUSED = ("-o", "type=tar,dest=-")
"""An output to a pipe that nobody empties: the exports of the build come to stand in the middle."""


@pytest.fixture
def paused(start_cogkit: StartCogkit, context_tree: MakeTree, out: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """A build that stands in the middle of its outputs: one to a pipe, one to ``out.tar``, one to ``tree``."""

    def start(**options: object) -> subprocess.Popen[bytes]:
        others = ("-o", f"type=oci,dest={out}/out.tar", "-o", f"type=local,dest={out}/tree")
        process = start_cogkit("build", context_tree(MANY_MEGABYTES), *PAUSED, *others, **options)
        assert process.stdout is not None
        assert process.stdout.read(100_000), "the output has begun"
        return process

    return start


def nothing_torn(out: Path) -> None:
    """The archive is not there, of the tree only whole files are, and nothing temporary is."""
    assert left_in(out) in ([], ["tree"])
    for path in out.rglob("*"):
        assert path.name in ("tree", "big")
        assert path.name == "tree" or path.stat().st_size == 8 << 20


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_in_the_middle_of_outputs_leaves_nothing_torn(
    number: signal.Signals, paused: Callable[..., subprocess.Popen[bytes]], out: Path
) -> None:
    process = paused()
    process.send_signal(number)
    assert process.wait(60) in (130, 143, -number)
    nothing_torn(out)


def test_kill_in_the_middle_of_outputs_leaves_nothing_torn(
    paused: Callable[..., subprocess.Popen[bytes]], out: Path
) -> None:
    """Even SIGKILL, which nobody can clean up after: the archive has no name until it is whole."""
    process = paused()
    process.kill()
    process.wait(60)
    nothing_torn(out)


def test_reader_that_goes_away_is_told(paused: Callable[..., subprocess.Popen[bytes]], out: Path) -> None:
    process = paused()
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    stderr = " ".join(process.stderr.read().decode().split())
    assert process.wait(60) == 1
    assert re.search(r"the reader of 'standard output' went away after [\d,]+ bytes", stderr), stderr
    nothing_torn(out)


def test_daemon_killed_in_the_middle_of_outputs_leaves_nothing_torn(
    private_buildkitd: Buildkitd, paused: Callable[..., subprocess.Popen[bytes]], out: Path
) -> None:
    process = paused(env={"BUILDKIT_HOST": private_buildkitd.address})
    private_buildkitd.kill()
    assert process.wait(60) in (1, 3)
    nothing_torn(out)
