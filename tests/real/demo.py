"""``make demo``: build ``examples/hello`` with cogkit on a buildkitd of its own, and run the image there.

The image is pushed to a registry on this machine.  It is run as a step of one more build on the same daemon, with the
image as its base, so that no container engine is needed: the step starts the image's command, which is Cog's server,
and asks it for one prediction.  ``python -m tests.real.demo PROJECT INPUT`` does the same with another project.
"""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.real.base_image import push_base_images
from tests.real.buildkitd import Buildkitd, DaemonOptions
from tests.real.cogkit_process import cogkit_environment
from tests.real.registry import Registry
from tests.real.tools import REPOSITORY

PROJECT = "examples/hello"
INPUT = '{"text": "hello from the builder"}'


class DemoError(Exception):
    """A step of the demo went wrong."""


def main(arguments: Sequence[str]) -> int:
    """Run the demo; returns the exit code."""
    project, request = arguments or (PROJECT, INPUT)
    with tempfile.TemporaryDirectory(prefix="cogkit-demo-") as name:
        folder = Path(name)
        registry = Registry(folder / "registry")
        try:
            push_base_images(registry, folder / "base-images")
            daemon = Buildkitd(folder / "buildkitd", DaemonOptions(registry=registry))
            try:
                _say(f"a private buildkitd listens on {daemon.address}")
                digest = _build(daemon, registry, project, folder)
                _run(daemon, registry, digest, request, folder)
            finally:
                daemon.remove()
        except DemoError as failure:
            _say(f"failed: {failure}")
            return 1
        finally:
            registry.stop()
    _say("buildkitd and the registry are stopped and removed")
    return 0


def _build(daemon: Buildkitd, registry: Registry, project: str, folder: Path) -> str:
    """Build and push; returns the image's digest."""
    image = f"{registry.host}/demo"
    metadata = folder / "metadata.json"
    build = ("build", "--context", project, "-t", image, "--push")
    _say(f"building {project}", f"cogkit {shlex.join(build)}")
    _cogkit(daemon, *build, "--metadata-file", str(metadata))
    digest = str(json.loads(metadata.read_text())["containerimage.digest"])
    _say(f"the image is {image}@{digest}")
    return digest


def _run(daemon: Buildkitd, registry: Registry, digest: str, request: str, folder: Path) -> None:
    command = registry.config("demo", digest)["config"].get("Cmd")
    if not command:
        raise DemoError("the image has no command")
    _say(f"running its command on the builder, and asking it for {request}", shlex.join(command))
    context = folder / "run"
    context.mkdir()
    shutil.copy(Path(__file__).with_name("prediction.py"), context)
    step = json.dumps(["python", "/demo/prediction.py", json.dumps(command), request])
    (context / "Dockerfile").write_text(
        f"FROM {registry.host}/demo@{digest}\nRUN --mount=type=bind,target=/demo {step}\n"
    )
    output = _logged(
        _cogkit(daemon, "build", "--context", str(context), "--no-cache", "--progress=rawjson", capture=True)
    )
    if not output:
        raise DemoError("the command answered nothing")
    print(output, end="", flush=True)


def _cogkit(daemon: Buildkitd, *arguments: str, capture: bool = False) -> str:
    """Run cogkit on the daemon, on our terminal or with what it prints captured."""
    done = subprocess.run(
        [sys.executable, "-m", "cogkit", *arguments],
        cwd=REPOSITORY,
        env=cogkit_environment({"BUILDKIT_HOST": daemon.address}),
        stderr=subprocess.PIPE if capture else None,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        if capture:
            print(_logged(done.stderr), file=sys.stderr)
        raise DemoError(f"cogkit {arguments[0]} exited with {done.returncode}")
    return done.stderr if capture else ""


def _logged(events: str) -> str:
    """What the steps of a build printed, from its rawjson events, and what is not an event as it is."""
    text = []
    for line in events.splitlines():
        if not line.startswith("{"):
            text.append(line + "\n")
            continue
        logs = json.loads(line).get("logs") or ()
        text += [base64.b64decode(log["data"]).decode(errors="replace") for log in logs]
    return "".join(text)


def _say(what: str, command: str | None = None) -> None:
    print(f"==> {what}", flush=True)
    if command is not None:
        print(f"    $ {command}", flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
