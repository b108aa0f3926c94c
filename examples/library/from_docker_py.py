"""From docker-py to BuildKit: ``python examples/library/from_docker_py.py DIRECTORY NAME``.

With docker-py, which has Docker's old builder only, a build was

    image, logs = docker.from_env().images.build(
        path=".", tag="name", buildargs={"A": "1"}, target="final", labels={"l": "x"}, nocache=True, pull=True
    )

and here is the same.  ``buildargs`` is `build_args`, ``nocache`` is `no_cache`, ``dockerfile`` is `file`; ``tag`` is
told to what is made of the result; and what ``logs`` had are events that come during the build.
"""

import sys

from cogkit.buildkit import BuildError, Client, SolveStatus, dockerfile, image

directory, name = sys.argv[1:3]


def show(event: SolveStatus) -> None:
    for log in event.logs:
        sys.stdout.write(log.data.decode(errors="replace"))


request = dockerfile(directory, build_args={"A": "1"}, target="final", labels={"l": "x"}, no_cache=True)

with Client.connect() as client:
    try:
        result = client.build(request, image(name), on_status=show)
    except BuildError as error:  # docker.errors.BuildError
        sys.exit(str(error))

# docker-py's image.id is the digest of the image's config.
print(result.config_digest)
