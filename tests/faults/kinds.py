"""The faults: what happens to a build, and which ends it may have then.

Exit codes are those of the design: 0 success, 1 the build failed, 3 the builder was lost, 4 no lock, 130 interrupted.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from cogkit.project.dotcog import DotCog
from tests.faults.project import Output, Project, Shape
from tests.faults.proxy import Proxy, Way
from tests.faults.running import BY_SIGNAL, Running
from tests.faults.scene import METADATA, Scene
from tests.real.buildkitd import Buildkitd

CROWD = 8

LOST = frozenset({0, 3})
"""Ends of a build whose builder goes away: the result was there before, or it says that the builder is lost."""

ANY_SHAPE: tuple[Shape, ...] = ("files", "files", "step", "cog")

_ENDED_BY_SIGNAL = frozenset({130, BY_SIGNAL})

Fault = Callable[[Scene], None]


# --------------------------------------------------------------------------------------------------------- the network


def cut(scene: Scene) -> None:
    """The connection breaks at some byte."""
    reset, for_good = scene.rng.random() < 0.5, scene.rng.random() < 0.5
    _at_some_byte(scene, scene.lab.shared, ANY_SHAPE, lambda proxy: proxy.cut(reset=reset, for_good=for_good))


def stall(scene: Scene) -> None:
    """The network takes bytes and brings them nowhere, in one direction or both; nothing is closed."""
    ways = scene.rng.choice([(Way.UP,), (Way.DOWN,), tuple(Way)])
    _at_some_byte(scene, scene.lab.shared, ANY_SHAPE, lambda proxy: proxy.stall(*ways))


def half_close(scene: Scene) -> None:
    """One side is told that the other has ended; the other direction goes on."""
    way = scene.way()
    _at_some_byte(scene, scene.lab.shared, ANY_SHAPE, lambda proxy: proxy.half_close(way))


def _at_some_byte(scene: Scene, daemon: Buildkitd, shapes: tuple[Shape, ...], act: Callable[[Proxy], None]) -> None:
    """A build whose builder is lost when some byte has gone through."""

    def happens(proxy: Proxy, running: Running) -> None:
        act(proxy)
        running.mark()

    proxy, project, outputs = _meets(scene, daemon, shapes, happens, LOST)
    # A build that was done before may have brought the link to that byte only by its leaving.
    proxy.close()
    daemon.resume()
    if not daemon.running:
        daemon.start_afresh()
    scene.next_build(project, daemon, outputs)


def _survives(scene: Scene, daemon: Buildkitd, shapes: tuple[Shape, ...], act: Callable[[Running], None]) -> None:
    """A build that succeeds though something happens when some byte has gone through."""
    _, project, outputs = _meets(scene, daemon, shapes, lambda _, running: act(running), frozenset({0}))
    scene.next_build(project, daemon, outputs)


def _meets(
    scene: Scene,
    daemon: Buildkitd,
    shapes: tuple[Shape, ...],
    happens: Callable[[Proxy, Running], None],
    codes: frozenset[int],
) -> tuple[Proxy, Project, list[Output]]:
    """A build to which something happens when some byte has gone through, to its end."""
    project = scene.project(*shapes, seconds=0.3)
    outputs = scene.outputs(project)
    proxy = scene.proxy(daemon)
    way = scene.way()
    byte = scene.byte(way, project, outputs)
    running = scene.start(project, proxy.address, outputs)
    proxy.at(way, byte, lambda: happens(proxy, running))
    scene.ends(running, codes, project, outputs)
    return proxy, project, outputs


# ---------------------------------------------------------------------------------------------------------- the daemon


def kill_daemon(scene: Scene) -> None:
    """buildkitd is killed."""
    with scene.lab.victim() as daemon:
        _at_some_byte(scene, daemon, ("files", "step"), lambda _: daemon.kill())


def freeze_daemon(scene: Scene) -> None:
    """buildkitd is stopped and does not go on."""
    with scene.lab.victim() as daemon:
        _at_some_byte(scene, daemon, ("files", "step"), lambda _: daemon.pause())


def freeze_daemon_briefly(scene: Scene) -> None:
    """buildkitd is stopped, and goes on before it may be taken for dead."""
    with scene.lab.victim() as daemon:
        waker = threading.Timer(scene.rng.uniform(0.2, 2.5), daemon.resume)

        def act(_: Running) -> None:
            daemon.pause()
            waker.start()

        _survives(scene, daemon, ("files", "step"), act)
        waker.cancel()


def suspend_cogkit(scene: Scene) -> None:
    """cogkit itself is stopped for a moment, as by Ctrl-Z or a laptop's lid."""
    seconds = scene.rng.uniform(0.2, 4.0)

    def act(running: Running) -> None:
        os.kill(running.process.pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(running.process.pid, signal.SIGCONT)

    _survives(scene, scene.lab.shared, ANY_SHAPE, act)


# ------------------------------------------------------------------------------------------------------------ the disk


def full_disk(scene: Scene) -> None:
    """The disk gets full while the results are written to it, or what is staged in the project."""
    project = scene.project("files", size=scene.rng.choice([50_000, 600_000]))
    content = sum(map(len, project.content.values()))
    disk = scene.small_disk(8 * content + (1 << 20))
    outputs = scene.outputs(project, disk, least=1)
    _fill(disk / "filler", leaving=int(content * len(outputs) * scene.rng.uniform(0, 2.5)))
    running = scene.start(project, scene.lab.shared.address, outputs)
    if scene.ends(running, {0, 1}, project, outputs) == 1:
        assert "no space left" in running.stderr, running.stderr
    shutil.rmtree(disk / "filler")
    scene.next_build(project, scene.lab.shared, outputs)


def full_project_disk(scene: Scene) -> None:
    """The project's own disk has little or no room for what a build keeps in ``.cog/``."""
    project = scene.project("cog", size=20_000)
    disk = scene.small_disk(1 << 20)
    project.path = Path(shutil.move(project.path, disk / "project"))
    _fill(disk / "filler", leaving=scene.rng.choice([0, 4096, 8192, 16384, 32768]))
    running = scene.start(project, scene.lab.shared.address)
    if scene.ends(running, {0, 1}, project) == 1:
        assert "No space left" in running.stderr, running.stderr
    shutil.rmtree(disk / "filler")
    scene.next_build(project, scene.lab.shared)


def _fill(folder: Path, leaving: int) -> None:
    """Fill the disk that ``folder`` is made on, but for about ``leaving`` bytes."""
    folder.mkdir()
    path = folder / "zeros"
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(path, max(0, path.stat().st_size - leaving))


def change_files(scene: Scene) -> None:
    """Files and folders of the project are changed, replaced and moved while they are sent."""
    project = scene.project("files", size=600_000)
    proxy = scene.proxy(scene.lab.shared)
    proxy.slow_down(600_000)
    outputs = [Output("tar", scene.out / "result.tar")]
    running = scene.start(project, proxy.address, outputs)
    changing = threading.Event()
    proxy.at(Way.UP, scene.rng.randrange(100, 4_000), changing.set)
    while not running.ended and not changing.wait(0.05):
        pass
    while not running.ended:
        _change_something(project.path, scene.rng)
        time.sleep(scene.rng.uniform(0, 0.03))
    # What it holds is some state of each file; that it is an archive to its end is all that can be said.
    code, _ = running.end({0})
    scene.lab.count(scene.case.kind, "success")
    assert code == 0
    assert outputs[0].files()
    project.reread()
    scene.next_build(project, scene.lab.shared, outputs)


def _change_something(root: Path, rng: Random) -> None:
    paths = [path for path in sorted(root.rglob("*")) if path.name != "Dockerfile"]
    path = rng.choice(paths)
    # Two changes may meet at one path; the next one tries another.
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.rename(path.with_name(f"moved{rng.randrange(1000)}"))
            return
        if path.is_fifo():
            path.unlink()  # opening it would wait for a reader
            return
        match rng.randrange(9):
            case 0:
                os.truncate(path, rng.randrange(path.stat().st_size + 1))
            case 1:
                with path.open("ab") as file:
                    file.write(rng.randbytes(rng.randrange(50_000)))
            case 2:
                path.unlink()
            case 3:
                path.unlink()
                path.mkdir()
                (path / "inner").write_bytes(rng.randbytes(100))
            case 4:
                path.unlink()
                # Later changes write through the link, as root: it must not lead out of the run's own folder.
                outside = root.parent / "outside"
                outside.touch()
                path.symlink_to(rng.choice(["nowhere", "..", str(outside), str(root)]))
            case 5:
                path.unlink()
                os.mkfifo(path)
            case 6:
                path.chmod(rng.choice([0o000, 0o644, 0o777, 0o4755]))
            case 7:
                path.write_bytes(rng.randbytes(rng.randrange(5_000)))
            case 8:
                (path.parent / f"new{rng.randrange(1000)}").write_bytes(rng.randbytes(100))


# --------------------------------------------------------------------------------------------------------- cogkit ends


def signal_at_any_time(scene: Scene) -> None:
    """A signal comes at a moment that depends on nothing."""
    project = scene.project(*ANY_SHAPE, seconds=0.3)
    outputs = scene.outputs(project)
    moment = scene.rng.uniform(0, 0.8)
    running = scene.start(project, scene.lab.shared.address, outputs)
    running.wait_until_it_takes_signals()
    time.sleep(moment)
    _is_ended_by_signal(scene, running, project, outputs)


def signal_while_waiting_for_the_lock(scene: Scene) -> None:
    """A signal comes while another build holds the project."""
    project = scene.project("cog", size=20_000)
    with DotCog.open(project.path) as dotcog, dotcog.lock():
        running = scene.start(project, scene.lab.shared.address)
        running.wait_for("waiting for ")
        time.sleep(scene.rng.uniform(0, 0.3))
        _send(scene, running)
        running.end(_ENDED_BY_SIGNAL)
    # What the holder itself keeps in .cog/ is gone only now.
    scene.ends(running, _ENDED_BY_SIGNAL, project)
    scene.next_build(project, scene.lab.shared)


def signal_while_connecting(scene: Scene) -> None:
    """A signal comes before the daemon has answered anything."""
    project = scene.project(*ANY_SHAPE)
    outputs = scene.outputs(project)
    proxy = scene.proxy(scene.lab.shared)
    proxy.stall(scene.way())
    running = scene.start(project, proxy.address, outputs)
    running.wait_until_it_takes_signals()
    time.sleep(scene.rng.uniform(0, 1.5))
    _is_ended_by_signal(scene, running, project, outputs)


def signal_in_the_transfer(scene: Scene) -> None:
    """A signal comes when some byte of the project, or of the result, has gone through a slow link."""
    project = scene.project("files", "cog", size=400_000)
    outputs = scene.outputs(project, least=1)
    way = scene.way()
    proxy = scene.proxy(scene.lab.shared)
    proxy.slow_down(600_000, way)
    running = scene.start(project, proxy.address, outputs)
    arrived = threading.Event()
    proxy.at(way, scene.byte(way, project, outputs), arrived.set)
    while not running.ended and not arrived.wait(0.01):
        pass
    _is_ended_by_signal(scene, running, project, outputs)


def signal_while_a_step_runs(scene: Scene) -> None:
    """A signal comes while a container runs at the daemon; that ends too."""
    project = scene.project("step", size=20_000, seconds=30)
    outputs = scene.outputs(project)
    running = scene.start(project, scene.lab.shared.address, outputs)
    running.wait_for(rf"#\d+ \d+\.\d+ begun {project.nonce}")
    time.sleep(scene.rng.uniform(0, 0.3))
    _is_ended_by_signal(scene, running, project, outputs)


def _is_ended_by_signal(scene: Scene, running: Running, project: Project, outputs: list[Output]) -> None:
    _send(scene, running)
    scene.ends(running, {0, *_ENDED_BY_SIGNAL}, project, outputs)
    scene.next_build(project, scene.lab.shared, outputs)


def _send(scene: Scene, running: Running) -> None:
    """A signal, now; or the same again a moment later, as of one who is in a hurry."""
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL]
    number = scene.rng.choice(numbers)
    running.interrupt(number)
    if scene.rng.random() < 0.25:
        time.sleep(scene.rng.uniform(0, 0.3))
        running.interrupt(number)


# -------------------------------------------------------------------------------------------------------------- crowds


def crowd_in_one_project(scene: Scene) -> None:
    """Eight builds of one project at once, one of which may be killed; each other one succeeds."""
    project = scene.project("files", "cog", size=100_000)
    crowd = [(project, _into(scene, project, f"out{number}")) for number in range(CROWD)]
    _crowd(scene, crowd)


def crowd_of_projects(scene: Scene) -> None:
    """Eight builds of eight projects at once, one of which may be killed; each other one succeeds."""
    projects = [scene.project("files", "cog", size=100_000) for _ in range(CROWD)]
    _crowd(scene, [(project, _into(scene, project, f"out{number}")) for number, project in enumerate(projects)])


def _into(scene: Scene, project: Project, name: str) -> list[Output]:
    (scene.out / name).mkdir()
    return scene.outputs(project, scene.out / name)


def _crowd(scene: Scene, crowd: list[tuple[Project, list[Output]]]) -> None:
    started = [scene.start(project, scene.lab.shared.address, outputs) for project, outputs in crowd]
    killed = scene.rng.choice(started) if scene.rng.random() < 0.5 else None
    if killed is not None:
        time.sleep(scene.rng.uniform(0.3, 2.0))
        killed.interrupt(signal.SIGKILL)
    for running, (project, outputs) in zip(started, crowd, strict=True):
        codes = {0, BY_SIGNAL} if running is killed else {0}
        code, _ = running.end(codes)
        scene.lab.count(scene.case.kind, "killed" if code else "success")
        for output in outputs:
            (output.require_nothing_torn if code else output.require_whole)(project.result)
    for project, outputs in {id(project): (project, outputs) for project, outputs in crowd}.values():
        if project is crowd[0][0]:
            scene.next_build(project, scene.lab.shared, outputs)
        else:
            project.require_clean(killed=killed is not None)


KINDS: dict[str, tuple[int, Fault]] = {
    "cut": (44, cut),
    "stall": (24, stall),
    "half-close": (14, half_close),
    "kill-daemon": (16, kill_daemon),
    "freeze-daemon": (10, freeze_daemon),
    "freeze-daemon-briefly": (10, freeze_daemon_briefly),
    "suspend-cogkit": (8, suspend_cogkit),
    "full-disk": (12, full_disk),
    "full-project-disk": (4, full_project_disk),
    "change-files": (16, change_files),
    "signal-any-time": (12, signal_at_any_time),
    "signal-lock": (5, signal_while_waiting_for_the_lock),
    "signal-connect": (5, signal_while_connecting),
    "signal-transfer": (10, signal_in_the_transfer),
    "signal-step": (6, signal_while_a_step_runs),
    "crowd-one": (2, crowd_in_one_project),
    "crowd-many": (2, crowd_of_projects),
}
"""Every kind, with its share of 200 runs."""

__all__ = ["KINDS", "METADATA", "Fault"]
