"""Build an image with the library: ``python examples/api.py [DIRECTORY [IMAGE]]``, with a buildkitd on this machine."""

import sys
from pathlib import Path

from cogkit.buildkit import Export, LocalMount, SolveRequest, SolveStatus, SyncBuildKitClient

directory = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
name = sys.argv[2] if len(sys.argv) > 2 else "example"


def show(status: SolveStatus) -> None:
    for vertex in status.vertexes:
        if vertex.completed:
            print("cached" if vertex.cached else "done", vertex.name)


request = SolveRequest(
    frontend="dockerfile.v0",
    mounts=(LocalMount("context", directory), LocalMount("dockerfile", directory)),
    exports=(Export("image", {"name": name}),),
)
with SyncBuildKitClient.connect() as client:
    print(client.solve(request, on_status=show).digest)
