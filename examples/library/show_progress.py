"""Show how a build goes on: ``python examples/library/show_progress.py DIRECTORY``.

A build is an object: iterating gives its events as they come, `result` waits for the end.  The error of a build that
fails knows the step, its place in the Dockerfile and the last that it printed.
"""

import sys

from cogkit.buildkit import Client, SolveError, dockerfile

names: dict[str, str] = {}

with Client.connect() as client, client.start(dockerfile(sys.argv[1])) as build:
    for event in build:
        for step in event.vertexes:
            names[step.digest] = step.name
            if step.completed and not step.error:
                took = (step.completed - step.started).total_seconds() if step.started else 0.0
                print(f"{'cached' if step.cached else f'{took:.1f} s'}  {step.name}")
        for log in event.logs:
            for line in log.data.decode(errors="replace").splitlines():
                print(f"        {names.get(log.vertex, '')}: {line}")
        for warning in event.warnings:
            print(f"warning {warning.short}")
    try:
        build.result()
    except SolveError as error:
        print(f"failed  {error.vertex_name}")
        if error.source is not None:
            print(f"        in {error.source.info.filename}, line {error.source.line}")
        sys.exit(f"exit code {error.process_exit_code}, after: {' / '.join(error.log_tail)}")
