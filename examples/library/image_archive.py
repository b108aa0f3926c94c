"""Make an image an archive: ``python examples/library/image_archive.py DIRECTORY NAME DESTINATION``.

One build, three results: an archive for ``docker load``, an OCI archive, and the files as a tar, which a program can
also take as it comes; this one looks at the names in it.
"""

import sys
import tarfile
import tempfile
from pathlib import Path

from cogkit.buildkit import Client, docker, dockerfile, oci, tar

directory, name, destination = sys.argv[1], sys.argv[2], Path(sys.argv[3])

with Client.connect() as client, tempfile.TemporaryFile() as files:
    result = client.build(
        dockerfile(directory),
        docker(destination / "docker.tar", name),
        oci(destination / "oci.tar", name),
        tar(files),
    )
    print(name, result.digest)
    files.seek(0)
    with tarfile.open(fileobj=files) as archive:
        for entry in archive:
            print(entry.name, entry.size)
