"""Build without a Dockerfile: ``python examples/library/llb_build.py SOURCE DESTINATION``.

Each ``*.txt`` of the folder SOURCE is sorted by a command of its own, all of them at once; the results are put together
without copying, and come to the folder DESTINATION.  It takes a buildkitd on this machine, or that of BUILDKIT_HOST.
"""

import sys
from pathlib import Path

from cogkit.buildkit import Client, LocalMount, SolveRequest, llb, local

source, destination = Path(sys.argv[1]), Path(sys.argv[2])

base = llb.image("busybox")
texts = llb.local("source", include=["*.txt"])


def sorted_text(name: str) -> llb.State:
    step = base.run(
        ["sort", "-o", f"/out/{name}", f"/in/{name}"],
        name=f"sort {name}",
        network="none",
        mounts=[llb.BindMount("/in", texts, readonly=True), llb.BindMount("/out")],
    )
    return step.get_mount("/out")


parts = [sorted_text(path.name) for path in sorted(source.glob("*.txt"))]
result = llb.merge(parts).file(llb.mkfile("/made-by", "llb_build.py\n"), name="say who made it")


request = SolveRequest(definition=result, mounts=(LocalMount("source", source),))

with Client.connect() as client, client.start(request, local(destination)) as build:
    for event in build:
        for step in event.vertexes:
            if step.completed:
                print("cached" if step.cached else "done", step.name)
    build.result()
