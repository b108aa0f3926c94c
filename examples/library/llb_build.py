"""Build without a Dockerfile: ``python examples/library/llb_build.py SOURCE DESTINATION``.

Each ``*.txt`` of the folder SOURCE is sorted by a command of its own, all of them at once; the results are put together
without copying, and come to the folder DESTINATION.  It takes a buildkitd on this machine, or that of BUILDKIT_HOST.
"""

import sys
from pathlib import Path

from cogkit.buildkit import Client, Export, LocalMount, SolveRequest, SolveStatus, llb

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


def show(status: SolveStatus) -> None:
    for vertex in status.vertexes:
        if vertex.completed:
            print("cached" if vertex.cached else "done", vertex.name)


request = SolveRequest(
    definition=result,
    mounts=(LocalMount("source", source),),
    exports=(Export("local", directory=destination),),
)
with Client.connect() as client:
    client.solve(request, on_status=show)
