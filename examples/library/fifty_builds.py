"""Build many projects at once: ``python examples/library/fifty_builds.py DIRECTORY``, one build for each folder in it.

One process, one connection, any number of builds; here at most fifty run at the same time.  One that fails does not
hold up the others.
"""

import asyncio
import sys
from pathlib import Path

from cogkit.buildkit import AsyncClient, BuildError, dockerfile

AT_ONCE = 50


async def main(directory: Path) -> int:
    projects = sorted(path for path in directory.iterdir() if path.is_dir())
    turn = asyncio.Semaphore(AT_ONCE)

    async with await AsyncClient.connect() as client:

        async def build(project: Path) -> bool:
            async with turn:
                try:
                    await client.build(dockerfile(project))
                except BuildError as error:
                    print(f"{project.name}: {error}")
                    return False
            print(f"{project.name}: built")
            return True

        built = await asyncio.gather(*map(build, projects))
    print(f"{sum(built)} of {len(built)} built")
    return 0 if all(built) else 1


sys.exit(asyncio.run(main(Path(sys.argv[1]))))
