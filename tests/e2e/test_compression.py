"""Compression with a real daemon: it arrives as it was, and less of it goes over the wire."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.conftest import MakeTree, RunCogkit
from tests.faults.proxy import Proxy, Way
from tests.real.buildkitd import Buildkitd

TEXT = "".join(f"def function_{number}(): return {number * 7}\n" for number in range(20_000))


@pytest.mark.parametrize("listen", ["unix", "tcp"])
@pytest.mark.parametrize("choice", ["on", "auto"])
def test_text_is_a_fraction_on_the_wire_and_whole_at_the_daemon(
    buildkitd: Buildkitd, context_tree: MakeTree, tmp_path: Path, run_cogkit: RunCogkit, listen: str, choice: str
) -> None:
    noise = os.urandom(300_000)
    root = context_tree({"Dockerfile": "FROM scratch\nCOPY code noise /\n", "code": TEXT, "noise": noise})
    out = tmp_path / "out"
    with tempfile.TemporaryDirectory(prefix="cogkit-", dir="/tmp") as folder:
        socket = Path(buildkitd.address.removeprefix("unix://"))
        with Proxy(socket, Path(folder), listen) as proxy:  # type: ignore[arg-type]  # pytest knows no literals
            run_cogkit(
                *(
                    "build",
                    root,
                    "--addr",
                    proxy.address,
                    "--transfer-compression",
                    choice,
                    "-o",
                    f"type=local,dest={out}",
                )
            ).check_returncode()
            carried = proxy.carried(Way.UP)
    assert (out / "code").read_text() == TEXT
    assert (out / "noise").read_bytes() == noise
    if choice == "on":
        assert carried < len(noise) + len(TEXT) / 2
    else:  # on this machine
        assert carried > len(noise) + len(TEXT)
