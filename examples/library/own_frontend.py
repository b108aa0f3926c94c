"""Be the frontend: ``python examples/library/own_frontend.py DIRECTORY NAME [REGISTRY/IMAGE]``.

The build is this program: it has a Dockerfile built, reads a file of the result, decides by that what to do next, and
gives an image whose config it has changed.  All of it is one build at the daemon, with one export.
"""

import sys

from cogkit.buildkit import Client, Gateway, GatewayResult, SolveRequest, dockerfile, image, llb

directory, name = sys.argv[1:3]
project = dockerfile(directory)


async def frontend(gateway: Gateway) -> GatewayResult:
    built = await gateway.solve(project.frontend, project.frontend_attrs)
    assert built.ref is not None
    release = (await built.ref.read_file("/etc/release")).decode().strip()
    print("the image is of release", release)

    # The filesystem goes on as a graph, and the image's config as it was made, but for a label.
    files = llb.state_of(built.ref.definition).file(llb.mkfile("/etc/checked", f"{release}\n"), name="mark as checked")
    checked = await gateway.solve(definition=files, evaluate=True)
    return GatewayResult(checked.ref, metadata=built.metadata).with_labels({"org.example.release": release})


# Without a frontend; the folders are those of the Dockerfile.
request = SolveRequest(mounts=project.mounts, shared_key=project.shared_key)

with Client.connect() as client:
    print(client.build(request, image(name, push="/" in name), frontend=frontend).digest)
