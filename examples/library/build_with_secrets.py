"""Build with secrets: ``TOKEN=… python examples/library/build_with_secrets.py DIRECTORY KEY_FILE``.

The Dockerfile of the folder mounts them where it needs them, and they are in no layer:

    RUN --mount=type=secret,id=token --mount=type=secret,id=key  …
"""

import os
import sys
from pathlib import Path

from cogkit.buildkit import Client, dockerfile

directory, key_file = sys.argv[1:3]

with Client.connect() as client:
    result = client.build(
        dockerfile(directory),
        secrets={
            "token": os.environ["TOKEN"],  # a value, text or bytes
            "key": Path(key_file),  # a file, read when a step asks for it
        },
    )
    print("built", result.ref)
