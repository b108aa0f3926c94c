"""The guarantees of file sync with a real daemon asking."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from cogkit.buildkit import Client, Export, LocalMount, SolveError, SolveRequest, SolveStatus
from cogkit.buildkit.fsutil.walk import MountError
from tests.conftest import MakeTree
from tests.real.buildkitd import Buildkitd
from tests.real.tree import Symlink


@pytest.fixture
def client(buildkitd: Buildkitd) -> Iterator[Client]:
    with Client.connect(buildkitd.address) as connected:
        yield connected


def request(
    context: LocalMount, *, output: Path | None = None, key: str = "", attrs: Mapping[str, str] | None = None
) -> SolveRequest:
    """Build the Dockerfile of a context."""
    dockerfile = LocalMount("dockerfile", context.root, only=frozenset({"Dockerfile", "Dockerfile.dockerignore"}))
    return SolveRequest(
        frontend="dockerfile.v0",
        frontend_attrs=attrs or {},
        mounts=(context, dockerfile),
        exports=(Export("local", directory=output),) if output is not None else (),
        shared_key=key,
    )


def test_cog_dir_never_leaves_even_when_dockerignore_asks(
    client: Client, context_tree: MakeTree, tmp_path: Path
) -> None:
    root = context_tree(
        {
            "Dockerfile": "FROM scratch\nCOPY . /\n",
            ".dockerignore": "*\n!.cog\n!.cog/**\n!**/secret\n!sub\n!link\n!.cog-backup\n",
            ".cog/secret": "secret",
            ".cog-backup": "ordinary",
            "sub/.cog/file": "ordinary",
            "link": Symlink(".cog/secret"),
        }
    )
    client.solve(request(LocalMount("context", root, hidden=frozenset({".cog"})), output=tmp_path / "out"))
    names = {
        os.path.relpath(os.path.join(at, name), tmp_path / "out")
        for at, dirs, files in os.walk(tmp_path / "out")
        for name in (*dirs, *files)
    }
    assert names == {".cog-backup", "sub", "sub/.cog", "sub/.cog/file", "link"}
    assert os.readlink(tmp_path / "out" / "link") == ".cog/secret"


@pytest.mark.parametrize("source", [".cog", ".cog/secret", "link", "./a/../.cog/secret", "dir-link/secret"])
def test_a_copy_of_the_cog_dir_finds_nothing(client: Client, context_tree: MakeTree, source: str) -> None:
    root = context_tree(
        {
            "Dockerfile": f"FROM scratch\nCOPY {source} /stolen/\n",
            ".cog/secret": "secret",
            "a/b": "",
            "link": Symlink(".cog/secret"),
            "dir-link": Symlink(".cog"),
        }
    )
    with pytest.raises(SolveError, match=r"not found|no such file|failed to calculate checksum"):
        client.solve(request(LocalMount("context", root, hidden=frozenset({".cog"}))))


def test_the_dockerfile_mount_gives_away_nothing_else(client: Client, context_tree: MakeTree) -> None:
    root = context_tree({"Dockerfile": "FROM scratch\nCOPY --from=files secret /\n", "secret": "x"})
    asked = request(LocalMount("context", root), attrs={"context:files": "local:dockerfile"})
    with pytest.raises(SolveError, match="secret"):
        client.solve(asked)


def test_a_directory_that_was_not_given_is_refused(client: Client, context_tree: MakeTree) -> None:
    root = context_tree({"Dockerfile": "FROM scratch\nCOPY --from=other . /\n"})
    with pytest.raises(SolveError, match='no access allowed to dir "other"') as caught:
        client.solve(request(LocalMount("context", root), attrs={"context:other": "local:other"}))
    assert str(root) not in str(caught.value)


def test_an_unreadable_file_is_named_with_what_to_do(buildkitd: Buildkitd) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "Dockerfile").write_text("FROM scratch\nCOPY . /\n")
        (root / "locked").write_text("secret")
        (root / "locked").chmod(0)
        with Client.connect(buildkitd.address) as client:
            if os.geteuid() == 0:
                os.seteuid(65534)
            try:
                with pytest.raises(MountError, match="permission denied: cannot read 'locked'") as caught:
                    client.solve(request(LocalMount("context", root)))
            finally:
                if os.getuid() == 0:
                    os.seteuid(0)
    assert caught.value.where == str(root / "locked")
    assert caught.value.hint is not None and "chmod" in caught.value.hint


def test_a_context_that_does_not_exist_is_named(client: Client, context_tree: MakeTree, tmp_path: Path) -> None:
    root = context_tree({"Dockerfile": "FROM scratch\nCOPY . /\n"})
    asked = SolveRequest(
        frontend="dockerfile.v0",
        mounts=(LocalMount("context", tmp_path / "missing"), LocalMount("dockerfile", root)),
    )
    with pytest.raises(MountError, match="'context' of the build does not exist") as caught:
        client.solve(asked)
    assert caught.value.where == str(tmp_path / "missing")


def test_a_second_build_sends_only_what_changed(client: Client, context_tree: MakeTree) -> None:
    root = context_tree({"Dockerfile": "FROM scratch\nCOPY . /\n", "big": "x" * 3_000_000, "small": "x" * 30_000})

    def transferred() -> int:
        sizes: list[int] = []

        def note(status: SolveStatus) -> None:
            sizes.extend(line.current for line in status.statuses if line.id == "transferring context:")

        client.solve(request(LocalMount("context", root), key="test-second-build"), on_status=note)
        return max(sizes)

    assert transferred() > 3_000_000
    assert transferred() < 10_000
    (root / "small").write_text("y" * 30_000)
    assert 30_000 < transferred() < 40_000


def test_two_projects_do_not_evict_each_other(client: Client, context_tree: MakeTree) -> None:
    roots = [context_tree({"Dockerfile": "FROM scratch\nCOPY . /\n", "big": c * 1_000_000}, name=c) for c in "ab"]

    def transferred(root: Path) -> int:
        sizes: list[int] = []

        def note(status: SolveStatus) -> None:
            sizes.extend(line.current for line in status.statuses if line.id == "transferring context:")

        client.solve(request(LocalMount("context", root), key=f"test-evict-{root.name}"), on_status=note)
        return max(sizes)

    assert [transferred(root) > 1_000_000 for root in (*roots, *roots)] == [True, True, False, False]
