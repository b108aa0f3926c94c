"""A daemon that tries to write outside the directory of ``--output type=local``, or to hang or exhaust the client.

Each attack is played by bytes to the real receiver on a real disk.  After each: nothing outside the destination has
changed, nothing temporary is left in it, and the error is one sentence that says what was refused.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import resource
import shutil
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cogkit.buildkit.exports import Export
from cogkit.buildkit.fsutil import receiver as receiver_module
from cogkit.buildkit.fsutil.receiver import Receiver
from cogkit.buildkit.fsutil.validator import TreeValidator
from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.session.services import filesend
from cogkit.buildkit.session.services.filesend import FileSend
from cogkit.errors import CogkitError
from tests.open_files import open_below
from tests.scripted_sender import (
    CHAR_DEVICE,
    DEVICE,
    DIRECTORY,
    END_OF_TREE,
    FIFO,
    FIN_PACKET,
    SETGID,
    SETUID,
    SOCKET,
    SYMLINK,
    ScriptedSender,
    blob,
    data,
    directory,
    error,
    number,
    stat,
    symlink,
)

SECRET = "written by nobody else"


@dataclass(frozen=True)
class Place:
    """A destination with something precious beside it."""

    root: Path

    @property
    def destination(self) -> Path:
        return self.root / "destination"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    def snapshot(self) -> dict[str, tuple[object, ...]]:
        """Everything but the destination: names, types, modes, owners, times, contents, link counts."""
        seen: dict[str, tuple[object, ...]] = {}
        for top, names, files in os.walk(self.root):
            names[:] = [name for name in names if Path(top, name) != self.destination]
            for name in (*names, *files):
                path = Path(top, name)
                status = path.lstat()
                contents = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                facts = (status.st_mode, status.st_uid, status.st_gid, status.st_nlink, status.st_mtime_ns, contents)
                seen[str(path)] = facts
        return seen

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.destination.rglob(".cogkit-*")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path / "place")
    place.destination.mkdir(parents=True)
    place.outside.mkdir()
    (place.outside / "secret").write_text(SECRET)
    (place.outside / "empty").mkdir()
    return place


def receive(place: Place, sender: ScriptedSender, *, attrs: Mapping[str, str] | None = None) -> None:
    """Play the sender to the service, as the session would.

    Raises:
        CogkitError: what the user would see.
    """

    async def play() -> None:
        service = FileSend([Export("local", attrs or {}, directory=place.destination)])
        handler = service.methods()[ScriptedSender.method]
        await asyncio.wait_for(handler(sender), 20)

    try:
        asyncio.run(play())
    except CallError as failure:
        assert isinstance(failure.cause, CogkitError), failure
        raise failure.cause from failure


def assert_clear(failure: CogkitError) -> None:
    text = str(failure)
    assert len(text) < 1000 and "\n" not in text and text.isprintable()
    assert "Errno" not in text and "Traceback" not in text and " b'" not in text


@dataclass(frozen=True)
class Attack:
    """What the sender does, and a part of what the user is told."""

    says: str
    packets: Iterable[bytes]
    answers: Mapping[int, Sequence[bytes]] = field(default_factory=dict)
    at_fin: Sequence[bytes] = (FIN_PACKET,)
    hang_up: bool = False


FILE = {0: [data(0, b"evil"), data(0)]}
FILE1 = {1: [data(1, b"evil"), data(1)]}

PATHS = {
    "dot-dot": Attack("leads out of the destination", [stat(b"..", DIRECTORY | 0o777)]),
    "file under dot-dot": Attack("leads out of the destination", [stat(b"../outside/secret", size=4)], FILE),
    "dot-dot in the middle": Attack("leads out of the destination", [directory(b"a"), stat(b"a/../../b", size=4)]),
    "dot-dot at the end": Attack("leads out of the destination", [directory(b"a"), stat(b"a/..", size=4)]),
    "absolute": Attack("is absolute", [stat(b"/etc/cron.d/evil", size=4)], FILE),
    "root": Attack("is absolute", [stat(b"/", DIRECTORY | 0o777)]),
    "empty": Attack("empty path", [stat(b"", size=4)], FILE),
    "dot": Attack("shortest form", [stat(b".", DIRECTORY | 0o777)]),
    "leading dot": Attack("shortest form", [stat(b"./a", size=4)], FILE),
    "double slash": Attack("shortest form", [directory(b"a"), stat(b"a//b", size=4)]),
    "trailing slash": Attack("shortest form", [stat(b"a/", size=4)]),
    "NUL byte": Attack("NUL byte", [stat(b"a\0b", size=4)]),
    "NUL before dot-dot": Attack("NUL byte", [stat(b"\0/../../x", size=4)]),
    "long name": Attack("longer than 255 bytes", [stat(b"n" * 256, size=4)]),
    "long path": Attack("longer than 4096 bytes", [stat(b"/".join([b"d"] * 2100), size=4)]),
    "terminal escape": Attack(r"\x1b[2J", [stat(b"../\x1b[2J\x07\n", size=4)]),
    "not UTF-8": Attack(r"\xff", [stat(b"../\xff\xfe", size=4)]),
}

ORDER = {
    "parent never sent": Attack("out of order", [stat(b"a/b", size=4)]),
    "parent is a file": Attack("out of order", [stat(b"a", size=4), stat(b"a/b", size=4)]),
    "parent is a link": Attack("out of order", [symlink(b"a", b"../outside"), stat(b"a/secret", size=4)]),
    "duplicate path": Attack("comes twice", [stat(b"a", size=4), stat(b"a", size=4)]),
    "link after directory": Attack("comes twice", [directory(b"a"), symlink(b"a", b"../outside"), stat(b"a/x")]),
    "directory left and entered again": Attack("out of order", [directory(b"a"), stat(b"b"), stat(b"a/x", size=4)]),
    "backwards": Attack("out of order", [stat(b"b"), stat(b"a")]),
}

LINKS = {
    "hard link to outside": Attack("not a regular file of this tree", [stat(b"h", linkname=b"../outside/secret")]),
    "hard link to absolute": Attack("not a regular file of this tree", [stat(b"h", linkname=b"/etc/passwd")]),
    "hard link to symlink": Attack(
        "not a regular file of this tree", [symlink(b"a", b"../outside/secret"), stat(b"h", linkname=b"a")]
    ),
    "hard link through symlink": Attack(
        "not a regular file of this tree", [symlink(b"a", b"../outside"), stat(b"h", linkname=b"a/secret")]
    ),
    "hard link to unseen": Attack("not a regular file of this tree", [stat(b"h", linkname=b"later"), stat(b"later")]),
    "hard link to itself": Attack("not a regular file of this tree", [stat(b"h", linkname=b"h")]),
    "hard link to directory": Attack("not a regular file of this tree", [directory(b"d"), stat(b"h", linkname=b"d")]),
    "hard link to pipe": Attack(
        "not a regular file of this tree", [stat(b"d", FIFO | 0o666), stat(b"h", linkname=b"d")]
    ),
    "symlink without target": Attack("a target that no link can have", [stat(b"l", SYMLINK | 0o777)]),
    "symlink with NUL": Attack("a target that no link can have", [symlink(b"l", b"a\0b")]),
}

KINDS = {
    "block device": Attack("device node 'sda'", [stat(b"sda", DEVICE | 0o666, device=(8, 0)), END_OF_TREE]),
    "character device": Attack(
        "device node 'mem'", [stat(b"mem", DEVICE | CHAR_DEVICE | 0o666, device=(1, 1)), END_OF_TREE]
    ),
    "socket": Attack("impossible file type", [stat(b"s", SOCKET | 0o666)]),
    "directory and link": Attack("impossible file type", [stat(b"s", DIRECTORY | SYMLINK, linkname=b"../outside")]),
    "negative size": Attack("negative size", [stat(b"a", size=-1)]),
}

GIT = {
    "hook in .git": Attack(".git", [directory(b".git"), directory(b".git/hooks"), stat(b".git/hooks/pre-push", 0o755)]),
    "hook in .GIT": Attack(".GIT", [directory(b".GIT"), stat(b".GIT/config", size=4)]),
    "nested repository": Attack(".git", [directory(b"sub"), directory(b"sub/.git"), stat(b"sub/.git/config", size=4)]),
    ".git as a file": Attack(".git", [stat(b".git", size=4)], FILE),
    ".git as a link": Attack(".git", [symlink(b".git", b"../outside")]),
}

PROTOCOL = {
    "data for a wrong id": Attack("not asked for", [stat(b"a", size=4), data(7, b"evil")]),
    "data before it was asked for": Attack("not asked for", [data(0, b"evil"), stat(b"a", size=4)]),
    "data for a directory": Attack("not asked for", [directory(b"a"), data(0, b"evil")]),
    "data for a link": Attack("not asked for", [symlink(b"a", b"../outside/secret"), data(0, b"evil")]),
    "giant data for a small file": Attack(
        "more than the 4 bytes", [stat(b"a", size=4), END_OF_TREE], {0: [data(0, b"x" * 100_000)] * 50}
    ),
    "one byte too many": Attack("more than the 4 bytes", [stat(b"a", size=4)], {0: [data(0, b"evil"), data(0, b"!")]}),
    "one byte too few": Attack("which it said has 4", [stat(b"a", size=4)], {0: [data(0, b"evi"), data(0)]}),
    "data after the end of the file": Attack(
        "not asked for", [stat(b"a", size=4), stat(b"b", size=4)], {0: [data(0, b"evil"), data(0), data(0, b"more")]}
    ),
    "FIN early": Attack("before everything was sent", [stat(b"a", size=4), FIN_PACKET]),
    "FIN at once": Attack("before everything was sent", [FIN_PACKET]),
    "stats after the end": Attack("after the end of its tree", [stat(b"a", size=4), END_OF_TREE, stat(b"b")]),
    "end twice": Attack("after the end of its tree", [stat(b"a", size=4), END_OF_TREE, END_OF_TREE]),
    "a request": Attack("only a receiver may send", [number(1, 1) + number(3, 1)]),
    "unknown packet": Attack("only a receiver may send", [number(1, 99)]),
    "not a packet": Attack("cannot be read", [b"\xff\xff\xff"]),
    "truncated packet": Attack("cannot be read", [stat(b"a", size=4)[:-1]]),
    "stat that is not a message": Attack("cannot be read", [blob(2, b"\xff")]),
    "closed early": Attack("before it was complete", [stat(b"a", size=4)], hang_up=True),
    "closed instead of FIN": Attack("before it was complete", [stat(b"a"), END_OF_TREE], {0: [data(0)]}, (), True),
    "error": Attack("it broke", [stat(b"a", size=4), error(b"it broke\n\x1b[31m")]),
    "stat instead of FIN": Attack("after the end of its tree", [END_OF_TREE], {}, [stat(b"a")]),
}

ATTACKS = {**PATHS, **ORDER, **LINKS, **KINDS, **GIT, **PROTOCOL}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_and_touches_nothing(place: Place, name: str) -> None:
    attack = ATTACKS[name]
    before = place.snapshot()
    sender = ScriptedSender(attack.packets, attack.answers, at_fin=attack.at_fin, hang_up=attack.hang_up)
    with pytest.raises(CogkitError) as caught:
        receive(place, sender)
    assert_clear(caught.value)
    assert attack.says in str(caught.value)
    assert place.snapshot() == before
    assert place.leftovers() == []
    assert not (place.destination / ".git").exists()
    assert sender.errors == [str(caught.value)], "the daemon is told too"


def test_refused_file_has_not_appeared_in_part(place: Place) -> None:
    too_much = {0: [data(0, b"x" * 1_000_000), data(0, b"x")]}
    with pytest.raises(CogkitError, match="more than the"):
        receive(place, ScriptedSender([stat(b"a", size=1_000_000)], too_much))
    assert list(place.destination.iterdir()) == []


@pytest.mark.parametrize("target", [b"../outside", b"/etc", b"..", b"dangling"])
def test_link_that_stands_where_a_directory_must_be_is_replaced_not_followed(place: Place, target: bytes) -> None:
    os.symlink(target, place.destination / "a")
    before = place.snapshot()
    receive(place, ScriptedSender([directory(b"a"), stat(b"a/secret", size=4), END_OF_TREE], FILE1))
    assert place.snapshot() == before
    assert not (place.destination / "a").is_symlink()
    assert (place.destination / "a" / "secret").read_bytes() == b"evil"


def test_link_that_stands_where_a_file_must_be_is_replaced_not_written_through(place: Place) -> None:
    (place.destination / "a").symlink_to("../outside/secret")
    (place.destination / "b").symlink_to("../outside/new")
    before = place.snapshot()
    packets = [stat(b"a", size=4), stat(b"b", size=4), END_OF_TREE]
    receive(place, ScriptedSender(packets, {0: [data(0, b"evil"), data(0)], 1: [data(1, b"evil"), data(1)]}))
    assert place.snapshot() == before
    assert (place.destination / "a").read_bytes() == b"evil"
    assert not (place.destination / "a").is_symlink() and not (place.destination / "b").is_symlink()


def test_file_hard_linked_with_one_outside_is_replaced_not_written(place: Place) -> None:
    os.link(place.outside / "secret", place.destination / "a")
    receive(place, ScriptedSender([stat(b"a", 0o777, size=4), END_OF_TREE], FILE))
    assert (place.outside / "secret").read_text() == SECRET
    assert (place.outside / "secret").stat().st_mode & 0o777 == 0o644
    assert (place.destination / "a").read_bytes() == b"evil"


def test_pipe_that_stands_where_a_file_must_be_is_replaced_not_opened(place: Place) -> None:
    os.mkfifo(place.destination / "a")
    receive(place, ScriptedSender([stat(b"a", size=4), END_OF_TREE], FILE))
    assert (place.destination / "a").read_bytes() == b"evil"


def test_links_to_the_outside_are_stored_as_they_are_and_nothing_goes_through_them(place: Place) -> None:
    before = place.snapshot()
    packets = [symlink(b"abs", b"/etc/passwd"), symlink(b"out", b"../outside"), symlink(b"up", b".."), END_OF_TREE]
    receive(place, ScriptedSender(packets))
    assert os.readlink(place.destination / "abs") == "/etc/passwd"
    assert os.readlink(place.destination / "out") == "../outside"
    assert place.snapshot() == before
    # and the next export, which has directories there, goes into directories
    packets = [directory(b"out"), stat(b"out/secret", size=4), END_OF_TREE]
    receive(place, ScriptedSender(packets, FILE1))
    assert place.snapshot() == before


def test_mirror_deletes_links_and_not_what_they_point_at(place: Place) -> None:
    (place.destination / "out").symlink_to("../outside")
    deep = place.destination / "deep" / "er"
    deep.mkdir(parents=True)
    (deep / "out").symlink_to("../../../outside")
    before = place.snapshot()
    sender = ScriptedSender([stat(b"kept", size=4), END_OF_TREE], FILE, metadata={filesend.MULTI_PLATFORM: (b"1",)})
    receive(place, sender, attrs={"mode": "delete"})
    assert [path.name for path in place.destination.iterdir()] == ["kept"]
    assert place.snapshot() == before


def test_mirror_from_a_part_of_the_platforms_is_refused(place: Place) -> None:
    (place.destination / "mine").write_text("mine")
    with pytest.raises(CogkitError, match="mode=delete"):
        receive(place, ScriptedSender([END_OF_TREE]), attrs={"mode": "delete"})
    assert (place.destination / "mine").read_text() == "mine"


@pytest.fixture
def repository(place: Place) -> Path:
    hooks = place.destination / ".git" / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "post-checkout").write_text("#!/bin/sh\n")
    return place.destination / ".git"


def test_existing_hooks_stay_as_they_are(place: Place, repository: Path) -> None:
    packets = [directory(b".git"), directory(b".git/hooks"), stat(b".git/hooks/post-checkout", 0o755, size=4)]
    with pytest.raises(CogkitError, match=r"\.git.*hooks or settings"):
        receive(place, ScriptedSender([*packets, END_OF_TREE], {2: [data(2, b"evil"), data(2)]}))
    assert (repository / "hooks" / "post-checkout").read_text() == "#!/bin/sh\n"


def test_mirror_keeps_the_repository_it_writes_into(place: Place, repository: Path) -> None:
    (place.destination / "sub" / ".git").mkdir(parents=True)
    (place.destination / "old").mkdir()
    sender = ScriptedSender([stat(b"new"), END_OF_TREE], {0: [data(0)]}, metadata={filesend.MULTI_PLATFORM: (b"1",)})
    receive(place, sender, attrs={"mode": "delete"})
    assert (repository / "hooks" / "post-checkout").exists()
    assert (place.destination / "sub" / ".git").is_dir()
    assert not (place.destination / "old").exists()


def test_file_does_not_replace_a_directory_that_has_a_repository_in_it(place: Place) -> None:
    (place.destination / "sub" / "deep" / ".git").mkdir(parents=True)
    with pytest.raises(CogkitError, match=r"has 'sub/deep/\.git' in it"):
        receive(place, ScriptedSender([stat(b"sub", size=4), END_OF_TREE], FILE))
    assert (place.destination / "sub" / "deep" / ".git").is_dir()


def test_git_is_written_when_the_user_asks_for_it(place: Place) -> None:
    packets = [directory(b".git"), stat(b".git/HEAD", size=4), END_OF_TREE]
    receive(place, ScriptedSender(packets, FILE1), attrs={"allow-git": "true"})
    assert (place.destination / ".git" / "HEAD").read_bytes() == b"evil"


@pytest.mark.parametrize("name", [b".gitignore", b".github", b"x.git", b"git"])
def test_names_that_only_look_like_git_are_ordinary(place: Place, name: bytes) -> None:
    receive(place, ScriptedSender([stat(name, size=4), END_OF_TREE], FILE))
    assert (place.destination / os.fsdecode(name)).read_bytes() == b"evil"


def test_setuid_of_another_owner_is_not_kept(place: Place) -> None:
    stranger = os.geteuid() + 1
    packets = [stat(b"a", SETUID | SETGID | 0o755, size=4, uid=stranger, gid=os.getegid() + 1), END_OF_TREE]
    receive(place, ScriptedSender(packets, FILE))
    assert (place.destination / "a").stat().st_mode & 0o7777 == 0o755


def test_owner_is_always_the_one_who_exports(place: Place) -> None:
    packets = [stat(b"a", size=4, uid=12345, gid=23456), stat(b"d", DIRECTORY | 0o755, uid=12345), END_OF_TREE]
    receive(place, ScriptedSender(packets, FILE))
    for name in ("a", "d"):
        status = (place.destination / name).stat()
        assert (status.st_uid, status.st_gid) == (os.geteuid(), os.getegid())


def test_attributes_that_give_power_are_not_set(place: Place) -> None:
    stranger = os.geteuid() + 1
    attributes = {b"trusted.overlay.opaque": b"y", b"security.capability": b"\1\0\0\2" + b"\0" * 16, b"bad\xff": b""}
    packets = [stat(b"a", size=4, uid=stranger, xattrs=attributes), END_OF_TREE]
    receive(place, ScriptedSender(packets, FILE))
    assert os.listxattr(place.destination / "a") == []


def test_endless_stats_end_at_a_limit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesend, "TreeValidator", lambda **kw: TreeValidator(**kw, max_entries=1000))

    def endless() -> Iterator[bytes]:
        for index in itertools.count():
            yield symlink(b"%09d" % index, b"x")

    with pytest.raises(CogkitError, match="more than 1,000 entries"):
        receive(place, ScriptedSender(endless()))


def test_endless_descriptions_without_contents_end_at_a_limit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver_module, "MAX_WAITING_BYTES", 1_000_000)
    huge = {b"user.x": b"x" * 60_000}

    def endless() -> Iterator[bytes]:
        for index in itertools.count():
            yield stat(b"%09d" % index, size=4, xattrs=huge)

    sender = ScriptedSender(endless())
    with pytest.raises(CogkitError, match="more files than can be kept in mind"):
        receive(place, sender)
    assert len(sender.requested) < 30


def test_tiny_data_in_huge_packets_does_not_pile_up(place: Place) -> None:
    """Unknown fields make a packet as large as one likes; what counts is the memory that is held, not the data."""
    padding = blob(15, b"\0" * 200_000)
    packets = [data(0, b"x") + padding] * 100
    receive(place, ScriptedSender([stat(b"a", size=100), END_OF_TREE], {0: [*packets, data(0)]}))
    assert (place.destination / "a").read_bytes() == b"x" * 100


def test_deep_tree_needs_no_more_descriptors_than_a_flat_one(place: Place) -> None:
    depth, path, packets = 400, b"", []
    for _ in range(depth):
        path = path + b"/d" if path else b"d"
        packets.append(directory(path))
    packets += [stat(path + b"/f", size=4), END_OF_TREE]
    before = len(os.listdir("/proc/self/fd"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 250, hard))
    try:
        receive(place, ScriptedSender(packets, {depth: [data(depth, b"evil"), data(depth)]}))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert open_below(place.destination) == []
    assert Path(os.fsdecode(os.fsencode(place.destination) + b"/" + path + b"/f")).read_bytes() == b"evil"


class Swapper:
    """Another process of this machine: swaps a directory of the destination for a link to the outside and back."""

    def __init__(self, victim: Path, target: Path):
        self._victim = victim
        self._aside = victim.with_name(victim.name + ".aside")
        self._target = target
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._swap, daemon=True)
        self.swaps = 0

    def __enter__(self) -> Swapper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _swap(self) -> None:
        link = self._victim.with_name("link")
        while not self._stop.is_set():
            try:
                self._victim.rename(self._aside)
                link.symlink_to(self._target)
                link.rename(self._victim)
                self.swaps += 1
                self._stop.wait(0.0002)
                self._victim.unlink()
                self._aside.rename(self._victim)
                self._stop.wait(0.0002)
            except OSError:
                self._tidy(link)

    def _tidy(self, link: Path) -> None:
        for path in (link, self._victim):
            if path.is_symlink():
                path.unlink()
        if self._victim.exists():
            # The export has made the directory anew; what was put aside would be in the way of the next swap.
            shutil.rmtree(self._aside, ignore_errors=True)
        elif self._aside.exists():
            self._aside.rename(self._victim)


def test_directory_swapped_for_a_link_during_the_export_is_never_written_through(place: Place) -> None:
    """Whatever the race's outcome (the export succeeds, or ends with a clear error), the outside stays as it was."""
    victim = place.destination / "a" / "b"
    victim.mkdir(parents=True)
    before = place.snapshot()
    count = 400
    names = [b"a/b/%04d" % index for index in range(count)]
    packets = [
        directory(b"a"),
        directory(b"a/b"),
        *(stat(name, size=4) for name in names),
        symlink(b"a/b/link", b"x"),
        stat(b"a/b/linked", linkname=names[0]),
        END_OF_TREE,
    ]
    answers = {index: [data(index, b"evil"), data(index)] for index in range(2, count + 2)}
    outcomes = set()
    with Swapper(victim, place.outside / "empty") as swapper:
        # On a busy machine the other thread may hardly get its turn in fifteen exports.
        for turn in range(300):
            if turn >= 15 and swapper.swaps > 10:
                break
            try:
                receive(place, ScriptedSender(packets, answers))
                outcomes.add("succeeded")
            except CogkitError as failure:
                assert_clear(failure)
                outcomes.add("refused")
    print(f"{swapper.swaps} swaps: {outcomes}")
    assert swapper.swaps > 10
    assert place.snapshot() == before
    assert list((place.outside / "empty").iterdir()) == []


def test_directory_swapped_for_a_link_between_its_making_and_its_first_file_ends_the_export(place: Place) -> None:
    """The same as above without chance: the swap happens when the file is asked for."""
    directories = [directory(b"%03d" % index) for index in range(100)]  # push it out of the open directories
    before = place.snapshot()

    async def swap(_: int) -> None:
        victim = place.destination / "000"
        victim.rename(place.destination / "aside")
        victim.symlink_to("../outside")

    sender = ScriptedSender(
        [*directories[:1], stat(b"000/secret", size=4), *directories[1:], END_OF_TREE], FILE1, on_request=swap
    )
    with pytest.raises(CogkitError, match="'000' was changed by something else"):
        receive(place, sender)
    assert place.snapshot() == before
    assert list((place.destination / "aside").iterdir()) == []


def test_hard_link_target_swapped_for_a_link_is_not_linked(place: Place) -> None:
    packets = [stat(b"a", size=4), stat(b"b", linkname=b"a"), stat(b"c", size=4), END_OF_TREE]
    before = place.snapshot()

    async def swap(id: int) -> None:
        if id == 2:
            while not (place.destination / "a").exists():
                await asyncio.sleep(0.001)
            (place.destination / "a").unlink()
            (place.destination / "a").symlink_to("../outside/secret")

    sender = ScriptedSender(packets, {0: [data(0, b"evil"), data(0)], 2: [data(2, b"evil"), data(2)]}, on_request=swap)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filesend, "Receiver", functools.partial(Receiver, window=1))  # c is asked for after a has come
        with pytest.raises(CogkitError, match="'a' was changed by something else"):
            receive(place, sender)
    assert place.snapshot() == before
    assert not (place.destination / "b").exists()


def test_unix_socket_in_the_way_is_replaced(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place.destination)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("a")
        receive(place, ScriptedSender([stat(b"a", size=4), END_OF_TREE], FILE))
    assert (place.destination / "a").read_bytes() == b"evil"


def test_cancelled_export_leaves_whole_files_and_nothing_else(place: Place) -> None:
    """The daemon resets the stream, or the user interrupts, with one file whole and another half sent."""
    packets = [stat(b"a", size=4), stat(b"b", size=1 << 20), END_OF_TREE]
    answers = {0: [data(0, b"evil"), data(0)], 1: [data(1, b"x" * (1 << 19))]}

    async def play() -> None:
        service = FileSend([Export("local", directory=place.destination)])
        task = asyncio.ensure_future(service.methods()[ScriptedSender.method](ScriptedSender(packets, answers)))
        while not (place.destination / "a").exists():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(play(), 20))
    assert [path.name for path in place.destination.iterdir()] == ["a"]
