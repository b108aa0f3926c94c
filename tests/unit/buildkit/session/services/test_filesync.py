"""The FileSync service: its calls, its refusals, its errors, and that its threads end with them."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest

from cogkit.buildkit.fsutil import walk
from cogkit.buildkit.fsutil.packet import Packet, PacketType, decode_packet, encode_packet
from cogkit.buildkit.fsutil.walk import ContentReader, MountError, Tree
from cogkit.buildkit.mounts import LocalMount
from cogkit.buildkit.session.service import CallError
from cogkit.buildkit.session.services import filesync
from cogkit.buildkit.session.services.filesync import DIFF_COPY, TAR_STREAM, FileSync, sync_options
from cogkit.buildkit.transport.grpc_messages import frame_messages
from cogkit.buildkit.transport.grpc_status import StatusCode
from tests.real.tree import write_tree
from tests.unit.buildkit.fsutil.test_walk import shared_root, unprivileged
from tests.unit.service_call import OneByOne, unframed

__all__ = ["shared_root"]  # a fixture


class Receiver(OneByOne):
    """The daemon's end of a call: what it gets, and what it sends."""

    method = DIFF_COPY
    takes_gzip = False

    def __init__(self, **metadata: str | list[str]):
        self.metadata = {
            key.replace("_", "-"): tuple(
                os.fsencode(value) for value in ([values] if isinstance(values, str) else values)
            )
            for key, values in metadata.items()
        }
        self.packets: list[Packet] = []
        self.incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.arrived = asyncio.Event()
        self.blocked: asyncio.Event | None = None
        """While set and not fired, the daemon takes nothing."""

    async def receive(self) -> bytes | None:
        return await self.incoming.get()

    async def send(self, message: bytes) -> None:
        await self.send_many([message])

    async def send_framed(self, pieces: Sequence[bytes]) -> None:
        await self.send_many(unframed(pieces))

    async def send_many(self, messages: Iterable[bytes]) -> None:
        self.packets += [decode_packet(message) for message in messages]
        self.arrived.set()
        if self.blocked is not None:
            await self.blocked.wait()

    # ---- for tests

    def say(self, type: PacketType, *, id: int = 0, data: bytes = b"") -> None:
        self.incoming.put_nowait(encode_packet(type, id=id, data=data))

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.arrived.clear()
            await asyncio.wait_for(self.arrived.wait(), 10)

    @property
    def paths(self) -> list[bytes]:
        return [packet.stat.path for packet in self.packets if packet.stat is not None]

    @property
    def walk_ended(self) -> bool:
        return any(packet.type == PacketType.STAT and packet.stat is None for packet in self.packets)

    def content(self, id: int) -> bytes:
        return b"".join(
            bytes(packet.data) for packet in self.packets if packet.type == PacketType.DATA and packet.id == id
        )

    def ended(self, id: int) -> bool:
        return any(packet.type == PacketType.DATA and packet.id == id and not packet.data for packet in self.packets)


Play = Callable[[Receiver], Awaitable[None]]


def call(service: FileSync, play: Play, **metadata: str | list[str]) -> Receiver:
    """Serve one call to a receiver that acts as ``play`` says; raises what the handler raises."""

    async def run() -> Receiver:
        receiver = Receiver(**metadata)
        handler = asyncio.ensure_future(service.methods()[DIFF_COPY](receiver))
        playing = asyncio.ensure_future(play(receiver))
        done, _ = await asyncio.wait((handler, playing), return_when=asyncio.FIRST_EXCEPTION, timeout=20)
        for future in (handler, playing):
            if future not in done:
                future.cancel()
        await asyncio.gather(handler, playing, return_exceptions=True)
        handler.result()
        playing.result()
        return receiver

    return asyncio.run(run())


async def take_all(receiver: Receiver) -> None:
    """Ask for every file, then say that all is there."""
    await receiver.until(lambda: receiver.walk_ended)
    stats = [packet.stat for packet in receiver.packets if packet.stat is not None]
    wanted = [id for id, stat in enumerate(stats) if stat.has_content and not stat.linkname]
    for id in wanted:
        receiver.say(PacketType.REQ, id=id)
    await receiver.until(lambda: all(receiver.ended(id) for id in wanted))
    receiver.say(PacketType.FIN)


async def wait(receiver: Receiver) -> None:
    """Take what comes and say nothing."""
    await asyncio.sleep(3600)


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("cogkit-walk", "cogkit-read"))}


def wait_for_threads() -> None:
    end = time.monotonic() + 5
    while threads() and time.monotonic() < end:
        time.sleep(0.01)
    assert not threads()


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterable[None]:
    yield
    wait_for_threads()


def open_descriptors() -> int:
    """Descriptors of this process, once the threads of calls that ended are gone."""
    gc.collect()
    wait_for_threads()
    return len(os.listdir("/proc/self/fd"))


def test_a_tree_is_described_and_its_files_are_sent_when_asked_for(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"a": "content of a", "d/b": "b" * 300_000, "d/empty": ""})
    service = FileSync([LocalMount("context", root)])
    before = open_descriptors()
    receiver = call(service, take_all, dir_name="context")
    assert receiver.paths == [b"a", b"d", b"d/b", b"d/empty"]
    assert [receiver.content(id) for id in (0, 2, 3)] == [b"content of a", b"b" * 300_000, b""]
    assert receiver.packets[-1].type == PacketType.FIN
    progress = service.progress["context"]
    assert (progress.entries, progress.files, progress.bytes_sent, progress.active) == (4, 3, 300_012, 0)
    assert open_descriptors() == before


def test_no_content_is_read_that_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_tree(tmp_path, {"a": "a", "b": "b"})

    def no_reader(tree: Tree) -> None:
        raise AssertionError("nothing is to be read")

    monkeypatch.setattr(walk, "ContentReader", no_reader)

    async def nothing_new(receiver: Receiver) -> None:
        await receiver.until(lambda: receiver.walk_ended)
        receiver.say(PacketType.FIN)

    receiver = call(FileSync([LocalMount("context", root)]), nothing_new, dir_name="context")
    assert receiver.packets[-1].type == PacketType.FIN


def test_files_from_memory_are_sent_whole_whatever_the_daemon_asks_for() -> None:
    files = {"Dockerfile[1]": b"x" * 300_000, "Dockerfile[1].dockerignore": b"", "a\\*": b"a"}
    service = FileSync([LocalMount("dockerfile", Path("/nonexistent"), files=files)])
    for asked in ({}, {"followpaths": ["Dockerfile[1]"]}, {"include_patterns": ["no"], "exclude_patterns": ["*"]}):
        receiver = call(service, take_all, dir_name="dockerfile", **asked)
        assert receiver.paths == [b"Dockerfile[1]", b"Dockerfile[1].dockerignore", b"a\\*"]
        assert [receiver.content(id) for id in range(3)] == list(files.values())
    empty = call(FileSync([LocalMount("context", Path(), files={})]), take_all, dir_name="context")
    assert empty.paths == []


def test_the_metadata_says_what_is_sent(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"a": "", "b/c": "", "b/d": "", "é e": "", "l": ""})
    service = FileSync([LocalMount("context", root)])
    assert call(service, take_all, dir_name="context", exclude_patterns=["b", "!b/c"]).paths == [
        b"a", b"b", b"b/c", b"l", "é e".encode(),
    ]  # fmt: skip
    assert call(service, take_all, dir_name="context", include_patterns=["b/d"]).paths == [b"b", b"b/d"]
    assert call(service, take_all, dir_name="context", followpaths=["a"], include_patterns=["l"]).paths == [b"a", b"l"]
    encoded = {"include_patterns": "%C3%A9+e", "include_patterns_encoded": "1"}
    assert call(service, take_all, dir_name="context", **encoded).paths == ["é e".encode()]


@pytest.mark.parametrize(
    ("given", "flag", "values"),
    [
        ([b"a b"], (), ["a b"]),
        ([b"a%20b+c"], (b"1",), ["a b c"]),
        ([b"a%20b"], (b"true",), ["a b"]),
        ([b"a%20b"], (b"0",), ["a%20b"]),
        ([b"a%20b"], (b"yes",), ["a%20b"]),
        ([b"a%2", b"%zz", b"%", b"%41"], (b"T",), ["", "", "", "A"]),
        ([b"%ff%C3%A9"], (b"1",), ["\udcffé"]),
        ([b"\xff"], (), ["\udcff"]),
    ],
)
def test_encoded_values_are_decoded_as_buildkit_does(
    given: list[bytes], flag: tuple[bytes, ...], values: list[str]
) -> None:
    metadata: dict[str, tuple[bytes, ...]] = {"exclude-patterns": tuple(given)}
    if flag:
        metadata["exclude-patterns-encoded"] = flag
    options = sync_options(metadata)
    assert options.exclude_patterns == values
    assert (options.dir_name, options.include_patterns, options.follow_paths) == ("", None, None)


@pytest.mark.parametrize("name", ["other", "", "context/", "../context", "a\x1b\xff"])
def test_a_directory_that_was_not_given_is_refused_without_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(CallError, match=r'^no access allowed to dir "') as caught:
        call(FileSync([LocalMount("context", tmp_path)]), wait, dir_name=name)
    assert caught.value.code is StatusCode.NOT_FOUND
    assert str(tmp_path) not in caught.value.message
    assert caught.value.message.isprintable()


def test_a_call_without_a_directory_is_refused() -> None:
    with pytest.raises(CallError, match=r'^no access allowed to dir ""$'):
        call(FileSync([]), wait)


def test_tar_streams_are_not_served() -> None:
    async def run() -> None:
        await FileSync([]).methods()[TAR_STREAM](Receiver())

    with pytest.raises(CallError) as caught:
        asyncio.run(run())
    assert caught.value.code is StatusCode.UNIMPLEMENTED


# ---- errors


def test_a_missing_root_is_told_to_the_user(tmp_path: Path) -> None:
    with pytest.raises(CallError, match="'context' of the build does not exist") as caught:
        call(FileSync([LocalMount("context", tmp_path / "no")]), wait, dir_name="context")
    assert isinstance(caught.value.cause, MountError)
    assert caught.value.cause.where == str(tmp_path / "no")


def test_a_pattern_that_cannot_be_used_fails_the_call(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": ""})
    service = FileSync([LocalMount("context", tmp_path)])
    with pytest.raises(CallError, match=r"^invalid excludepatterns: \[\[\]: syntax error in pattern$"):
        call(service, wait, dir_name="context", exclude_patterns=["["])
    with pytest.raises(CallError, match=r"^failed to match excludepatterns: syntax error in pattern$"):
        call(service, wait, dir_name="context", exclude_patterns=["b*["])


def test_an_unreadable_file_ends_the_transfer_at_both_ends(shared_root: Path) -> None:
    write_tree(shared_root, {"a": "a", "locked": "secret"})
    (shared_root / "locked").chmod(0)
    seen: list[Receiver] = []

    async def play(receiver: Receiver) -> None:
        seen.append(receiver)
        await take_all(receiver)

    service = FileSync([LocalMount("context", shared_root)])
    with unprivileged(), pytest.raises(CallError, match="permission denied: cannot read 'locked'") as caught:
        call(service, play, dir_name="context")
    assert isinstance(caught.value.cause, MountError)
    told = seen[0].packets[-1]
    assert told.type == PacketType.ERR
    assert b"permission denied: cannot read 'locked' of the directory 'context'" in bytes(told.data)
    assert os.fsencode(shared_root) not in bytes(told.data), "paths of this machine are not the daemon's business"


def test_an_unreadable_file_that_is_excluded_is_no_error(shared_root: Path) -> None:
    write_tree(shared_root, {"a": "a", "locked": "secret", "d/b": ""})
    (shared_root / "locked").chmod(0)
    (shared_root / "d").chmod(0)
    with unprivileged():
        receiver = call(
            FileSync([LocalMount("context", shared_root)]),
            take_all,
            dir_name="context",
            exclude_patterns=["locked", "d"],
        )
    assert receiver.paths == [b"a"]


@pytest.mark.parametrize("hang_up", ["cancel", "end"])
def test_a_daemon_that_hangs_up_on_hearing_of_a_failure_does_not_hide_it(shared_root: Path, hang_up: str) -> None:
    (shared_root / "locked").mkdir(0)

    async def run() -> None:
        receiver = Receiver(dir_name="context")
        receiver.blocked = asyncio.Event()  # the ERR packet is still on its way when the daemon hangs up
        handler = asyncio.ensure_future(FileSync([LocalMount("context", shared_root)]).methods()[DIFF_COPY](receiver))
        await receiver.until(lambda: any(packet.type == PacketType.ERR for packet in receiver.packets))
        if hang_up == "cancel":
            handler.cancel()
        else:
            receiver.incoming.put_nowait(None)
        with pytest.raises(CallError) as caught:
            await asyncio.wait_for(handler, 10)
        assert isinstance(caught.value.cause, MountError)

    with unprivileged():
        asyncio.run(run())


@pytest.mark.parametrize("turns", range(8))
def test_the_failure_is_told_at_whichever_turn_of_the_loop_the_daemon_hangs_up(shared_root: Path, turns: int) -> None:
    (shared_root / "locked").mkdir(0)

    async def run() -> None:
        receiver = Receiver(dir_name="context")
        handler = asyncio.ensure_future(FileSync([LocalMount("context", shared_root)]).methods()[DIFF_COPY](receiver))
        await receiver.until(lambda: any(packet.type == PacketType.ERR for packet in receiver.packets))
        for _ in range(turns):
            await asyncio.sleep(0)
        handler.cancel()
        with pytest.raises(CallError) as caught:
            await asyncio.wait_for(handler, 10)
        assert isinstance(caught.value.cause, MountError)

    with unprivileged():
        asyncio.run(run())


def test_a_bug_in_a_thread_ends_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(filesync, "frame_messages", broken)
    write_tree(tmp_path, {"a": ""})
    with pytest.raises(ZeroDivisionError):
        call(FileSync([LocalMount("context", tmp_path)]), wait, dir_name="context")


def test_a_receiver_that_asks_for_what_is_not_there_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": ""})

    async def play(receiver: Receiver) -> None:
        receiver.say(PacketType.REQ, id=5)
        await wait(receiver)

    with pytest.raises(CallError, match=r"^invalid file id 5$"):
        call(FileSync([LocalMount("context", tmp_path)]), play, dir_name="context")


def test_an_error_of_the_receiver_ends_the_call(tmp_path: Path) -> None:
    async def play(receiver: Receiver) -> None:
        receiver.say(PacketType.ERR, data=b"disk full")
        await wait(receiver)

    with pytest.raises(CallError, match=r"^error from receiver: disk full$"):
        call(FileSync([LocalMount("context", tmp_path)]), play, dir_name="context")


def test_a_receiver_that_goes_away_ends_the_call(tmp_path: Path) -> None:
    async def play(receiver: Receiver) -> None:
        receiver.incoming.put_nowait(None)
        await wait(receiver)

    with pytest.raises(CallError, match="before it had everything") as caught:
        call(FileSync([LocalMount("context", tmp_path)]), play, dir_name="context")
    assert caught.value.code is StatusCode.CANCELLED


def test_files_that_vanish_after_they_were_described_are_sent_empty(tmp_path: Path) -> None:
    write_tree(tmp_path, {"a": "a", "b": "b"})

    async def play(receiver: Receiver) -> None:
        await receiver.until(lambda: receiver.walk_ended)
        (tmp_path / "a").unlink()
        await take_all(receiver)

    receiver = call(FileSync([LocalMount("context", tmp_path)]), play, dir_name="context")
    assert (receiver.content(0), receiver.content(1)) == (b"", b"b")


def test_a_file_whose_content_upstream_withholds_is_sent_empty(tmp_path: Path) -> None:
    # fsutil sends such a file, and then its other way to match does not let it open it.
    write_tree(tmp_path, {"a/b": "content"})
    patterns = ["a", "!a/b", "a"]
    receiver = call(
        FileSync([LocalMount("context", tmp_path)]), take_all, dir_name="context", exclude_patterns=patterns
    )
    assert receiver.paths == [b"a", b"a/b"]
    assert receiver.content(1) == b"" and receiver.ended(1)


# ---- bounds and ends


def _cancelled_while(play: Play, root: Path) -> float:
    """Cancel a call when ``play`` has returned; seconds until its threads are gone."""

    async def run() -> float:
        receiver = Receiver(dir_name="context")
        receiver.blocked = asyncio.Event()
        handler = asyncio.ensure_future(FileSync([LocalMount("context", root)]).methods()[DIFF_COPY](receiver))
        await asyncio.wait_for(play(receiver), 10)
        start = time.monotonic()
        handler.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handler
        while threads():
            await asyncio.sleep(0.005)
        return time.monotonic() - start

    return asyncio.run(asyncio.wait_for(run(), 20))


def test_cancelling_ends_a_walk_that_waits_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesync, "_BACKLOG", 1000)
    write_tree(tmp_path, {f"{number}": "" for number in range(2000)})
    before = open_descriptors()

    async def play(receiver: Receiver) -> None:
        await receiver.until(lambda: bool(receiver.packets))
        await asyncio.sleep(0.05)
        assert threads(), "the walk is waiting"

    assert _cancelled_while(play, tmp_path) < 1
    assert open_descriptors() == before


def test_cancelling_ends_reads_that_wait_for_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesync, "_BACKLOG", 1000)
    (tmp_path / "big").write_bytes(bytes(50_000_000))

    async def play(receiver: Receiver) -> None:
        assert receiver.blocked is not None
        receiver.blocked.set()
        await receiver.until(lambda: receiver.walk_ended)
        receiver.blocked.clear()
        receiver.say(PacketType.REQ, id=0)
        await receiver.until(lambda: any(packet.type == PacketType.DATA for packet in receiver.packets))
        await asyncio.sleep(0.05)
        assert sum(len(packet.data) for packet in receiver.packets) < 2_000_000, "reading runs ahead of sending"

    assert _cancelled_while(play, tmp_path) < 1


def test_cancelling_ends_a_walk_that_finds_nothing_to_send(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(100):
        (tmp_path / f"{number}" / "x").mkdir(parents=True)
    entered = threading.Semaphore(0)
    go_on = threading.Semaphore(5)
    real_scandir = os.scandir

    def slow_scandir(fd: int) -> object:
        entered.release()
        assert go_on.acquire(timeout=10)
        return real_scandir(fd)

    monkeypatch.setattr(os, "scandir", slow_scandir)

    async def run() -> None:
        receiver = Receiver(dir_name="context", include_patterns=["**/nothing"])
        handler = asyncio.ensure_future(FileSync([LocalMount("context", tmp_path)]).methods()[DIFF_COPY](receiver))
        for _ in range(6):
            await asyncio.to_thread(entered.acquire)
        handler.cancel()
        with pytest.raises(asyncio.CancelledError):
            await handler
        go_on.release(1000)
        while threads():
            await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(run(), 20))
    assert not entered.acquire(blocking=False), "no directory was entered after the call had ended"


def test_what_waits_to_be_sent_is_bounded(tmp_path: Path) -> None:
    for number in range(6):
        (tmp_path / f"big{number}").write_bytes(bytes(8_000_000))

    async def play(receiver: Receiver) -> None:
        assert receiver.blocked is not None
        receiver.blocked.set()
        await receiver.until(lambda: receiver.walk_ended)
        receiver.blocked.clear()
        for id in range(6):
            receiver.say(PacketType.REQ, id=id)
        await receiver.until(lambda: any(packet.type == PacketType.DATA for packet in receiver.packets))
        await asyncio.sleep(0.3)
        read = int(_io("rchar"))
        await asyncio.sleep(0.1)
        assert int(_io("rchar")) - read < 1_000_000, "reading has stopped"

    _cancelled_while(play, tmp_path)


def _io(key: str) -> str:
    lines: Mapping[str, str] = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return lines[key]


def test_several_calls_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_tree(tmp_path / name, {f"{number}": f"{name} {number}" for number in range(500)})
    service = FileSync([LocalMount("one", tmp_path / "one"), LocalMount("two", tmp_path / "two")])

    async def run() -> list[Receiver]:
        receivers = [Receiver(dir_name=name) for name in ("one", "two", "one")]
        calls = [service.methods()[DIFF_COPY](receiver) for receiver in receivers]
        await asyncio.wait_for(asyncio.gather(*calls, *map(take_all, receivers)), 20)
        return receivers

    for receiver, name in zip(asyncio.run(run()), ("one", "two", "one"), strict=True):
        for id, path in enumerate(receiver.paths):
            assert receiver.content(id) == b"%b %b" % (name.encode(), path)
    assert service.progress["one"].files == 1000
    assert service.progress["two"].files == 500


def test_the_walk_waits_while_the_receiver_waits_for_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a daemon would collect a stack and a file for each of hundreds of thousands."""
    count, batch = 800, 16
    monkeypatch.setattr(filesync, "_AHEAD", batch)
    monkeypatch.setattr(walk, "BATCH", batch)
    monkeypatch.setattr(walk, "FIRST_BATCH", batch)
    write_tree(tmp_path, {f"{number:04}": "content" for number in range(count)})
    batches: list[int] = []
    asked = threading.Event()

    def frame_and_wait(packets: Sequence[bytes]) -> bytes:
        batches.append(len(packets))
        if len(batches) == 2:
            asked.wait(10)
        return frame_messages(packets)

    monkeypatch.setattr(filesync, "frame_messages", frame_and_wait)

    def described(receiver: Receiver, id: int) -> bool:
        return len(receiver.paths) > id

    async def play(receiver: Receiver) -> None:
        await receiver.until(lambda: len(receiver.paths) == batch)
        receiver.blocked = asyncio.Event()
        for id in range(batch):
            receiver.say(PacketType.REQ, id=id)
        while not receiver.incoming.empty():
            await asyncio.sleep(0)
        asked.set()
        await asyncio.sleep(0.2)
        assert len(batches) == 2
        receiver.blocked.set()
        receiver.blocked = None
        for id in range(batch, count):
            await receiver.until(partial(described, receiver, id))
            receiver.say(PacketType.REQ, id=id)
        await receiver.until(lambda: all(receiver.ended(id) for id in range(count)))
        receiver.say(PacketType.FIN)

    receiver = call(FileSync([LocalMount("context", tmp_path)]), play, dir_name="context")
    assert all(receiver.content(id) == b"content" for id in range(count))


def test_a_call_that_ends_while_its_walk_waits_leaves_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesync, "_AHEAD", 1)
    monkeypatch.setattr(walk, "FIRST_BATCH", 1)
    write_tree(tmp_path, {"a": "a", "b": "b", "c": "c"})

    async def play(receiver: Receiver) -> None:
        await receiver.until(lambda: len(receiver.paths) >= 1)
        receiver.blocked = asyncio.Event()
        receiver.say(PacketType.REQ, id=0)
        while not any(name.startswith("cogkit-read") for name in threads()):
            await asyncio.sleep(0)
        receiver.say(PacketType.ERR, data=b"enough")

    with pytest.raises(CallError, match="enough"):
        call(FileSync([LocalMount("context", tmp_path)]), play, dir_name="context")


def test_who_waits_for_a_disk_is_joined_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count = 200
    monkeypatch.setattr(filesync, "_TRIAL", 0.0)
    write_tree(tmp_path, {f"{number:04}": "content" for number in range(count)})
    seen: set[str] = set()

    class SlowReader(ContentReader):
        def read(self, path: bytes, chunk: int) -> Iterator[bytes]:
            seen.add(threading.current_thread().name)
            time.sleep(0.005)
            return super().read(path, chunk)

    monkeypatch.setattr(walk, "ContentReader", SlowReader)

    async def play(receiver: Receiver) -> None:
        await receiver.until(lambda: receiver.walk_ended)
        receiver.say(PacketType.REQ, id=0)
        await receiver.until(lambda: receiver.ended(0))
        for id in range(1, count):
            receiver.say(PacketType.REQ, id=id)
        await receiver.until(lambda: all(receiver.ended(id) for id in range(count)))
        receiver.say(PacketType.FIN)

    receiver = call(FileSync([LocalMount("context", tmp_path)]), play, dir_name="context")
    assert all(receiver.content(id) == b"content" for id in range(count))
    assert len(seen) > 1
