"""From a `cogkit.project.config.Config` to a Dockerfile and the files it copies from ``.cog/build``.

`generate` decides everything and writes nothing: the same config, options and files give the same bytes on any
machine.  `stage` writes the files where the named context ``cog_build`` will find them.
"""

from cogkit.dockerfile.cacert import read_ca_cert
from cogkit.dockerfile.generator import (
    DEFAULT_REGISTRY_HOST,
    FREEZE_FILE,
    FREEZE_STAGE,
    REGISTRY_HOST_VARIABLE,
    SCHEMA_ANSWERS,
    SCHEMA_QUESTIONS,
    SCHEMA_SCRIPT,
    SCHEMA_STAGE,
    Generated,
    GenerateOptions,
    cog_base_image,
    finishing_dockerfile,
    generate,
)
from cogkit.dockerfile.staging import StagedFile, stage
from cogkit.dockerfile.wheels import Wheel, coglet_wheel, sdk_wheel

__all__ = [
    "DEFAULT_REGISTRY_HOST",
    "FREEZE_FILE",
    "FREEZE_STAGE",
    "REGISTRY_HOST_VARIABLE",
    "SCHEMA_ANSWERS",
    "SCHEMA_QUESTIONS",
    "SCHEMA_SCRIPT",
    "SCHEMA_STAGE",
    "GenerateOptions",
    "Generated",
    "StagedFile",
    "Wheel",
    "cog_base_image",
    "coglet_wheel",
    "finishing_dockerfile",
    "generate",
    "read_ca_cert",
    "sdk_wheel",
    "stage",
]
