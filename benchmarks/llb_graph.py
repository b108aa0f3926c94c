"""The graph of the case ``llb``: ``python -m benchmarks.llb_graph OPS`` makes it, marshals it and writes it to stdout.

It is that of ``tests/oracle_llb/bench.go``: chains of a hundred commands and files, merged.  This file must not
measure anything.
"""

from __future__ import annotations

import sys

from cogkit.buildkit import llb


def graph(count: int) -> llb.State:
    base = state = llb.image("docker.io/library/busybox:latest")
    chains: list[llb.State] = []
    for number in range(count):
        if number % 2 == 0:
            state = state.run(
                ["sh", "-c", f"echo {number} > /out"],
                env={"STEP": str(number)},
                mounts=[llb.CacheMount("/root/.cache", "cache")],
                name=f"step {number}",
            )
        else:
            state = state.file(llb.mkfile(f"/file-{number}", str(number)))
        if number % 100 == 99:
            chains.append(state)
            state = base
    return llb.merge([*chains, state])


if __name__ == "__main__":
    sys.stdout.buffer.write(graph(int(sys.argv[1])).marshal(platform="linux/amd64").to_bytes())
