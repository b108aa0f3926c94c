"""Build an image with the library: ``python examples/api.py [DIRECTORY [IMAGE]]``, with a buildkitd on this machine."""

import sys

from cogkit.buildkit import Client, dockerfile, image

directory = sys.argv[1] if len(sys.argv) > 1 else "."
name = sys.argv[2] if len(sys.argv) > 2 else "example"

with Client.connect() as client, client.start(dockerfile(directory), image(name)) as build:
    for event in build:
        for vertex in event.vertexes:
            if vertex.completed:
                print("cached" if vertex.cached else "done", vertex.name)
    print(build.result().digest)
