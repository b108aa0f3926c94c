"""Names that the generated Dockerfile and the build that offers its contexts must agree on.  Nothing but names."""

from __future__ import annotations

from typing import Final

COG_BUILD_CONTEXT: Final = "cog_build"
"""The context on ``.cog/build``, from which generated Dockerfiles copy staged files."""

COG_WEIGHTS_CONTEXT: Final = "cog_weights"
"""The context on the project's folder that has its weights and nothing else."""

SOURCE_DATE_EPOCH: Final = "SOURCE_DATE_EPOCH"
"""The variable and the build argument for the time that stands for all (reproducible-builds.org)."""

EPOCH_OF_CONTEXT: Final = "context"
"""Its value that stands for the time of a Git context's commit; the Dockerfile frontend resolves it (BuildKit 0.32)."""
