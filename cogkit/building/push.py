"""What makes a push of a build: the name it goes to, and the label by which a push is known.

This file must not build, push or render anything.
"""

from __future__ import annotations

import os
import secrets
import time
import uuid
from collections.abc import Mapping
from dataclasses import replace

from cogkit.building.cog import LABEL_NAMESPACE
from cogkit.building.model_reference import push_target
from cogkit.building.options import BuildOptions
from cogkit.building.recipes import find_build_project, has_local_project
from cogkit.building.values import parse_tag
from cogkit.buildkit.errors import BuildError
from cogkit.dockerfile import DEFAULT_REGISTRY_HOST
from cogkit.errors import CogkitError
from cogkit.oci.reference import parse_reference
from cogkit.project.config import Config, load_config

IMAGE_TAG_PREFIX = "cog-image."
REPLICATE_WEBSITE = "https://replicate.com"


def push_options(options: BuildOptions, image: str | None, environ: Mapping[str, str] = os.environ) -> BuildOptions:
    """The options of a build that pushes, with the name that `cogkit.building.model_reference` finds.

    A model with managed weights is an index of its image and its weights; `as_part_of_model` makes the options of the
    image from these.

    Raises:
        ConfigError, UsageError: there is no project, or no name to push it under.
    """
    project = find_build_project(options) if has_local_project(options) else None
    named, model = "", ""
    if project is not None and project.config_path is not None:
        config = load_config(project.config_path, project_dir=project.root)
        named, model = config.image, config.model
    target = parse_tag(push_target(named, model, image, environ), flag="the image to push")
    annotations = {**options.cog.annotations, f"{LABEL_NAMESPACE}push_id": str(uuid7())}
    tags = (target, *(tag for tag in options.tags if tag != target))
    return replace(options, tags=tags, push=True, cog=replace(options.cog, annotations=annotations))


def managed_weights(options: BuildOptions) -> Config | None:
    """The configuration of a project with managed weights; None for any other."""
    project = find_build_project(options)
    if project.config_path is None:
        return None
    config = load_config(project.config_path, project_dir=project.root)
    return config if config.weights else None


def as_part_of_model(options: BuildOptions) -> BuildOptions:
    """The same, but the image goes under a tag beside the model's own, as Cog names it."""
    model, *others = options.tags
    reference = parse_reference(model)
    image = f"{reference.name}:{IMAGE_TAG_PREFIX}{reference.tag or 'latest'}"
    return replace(options, tags=(image, *others))


def uuid7() -> uuid.UUID:
    """A new UUID of version 7 (RFC 9562): the time in milliseconds, then chance."""
    value = (time.time_ns() // 1_000_000 & (1 << 48) - 1) << 80 | secrets.randbits(80)
    value = value & ~(0xF << 76) | 7 << 76
    return uuid.UUID(int=value & ~(0b11 << 62) | 0b10 << 62)


def explained_push_failure(problem: CogkitError, image: str) -> CogkitError:
    """The failure, in the words that help where the registry is Replicate's and does not know the model."""
    failed_push = isinstance(problem, BuildError) and "failed to push" in problem.message
    unknown = any(sign in problem.message.lower() for sign in ("404", "not found", "name unknown", "name_unknown"))
    if not (failed_push and unknown and parse_reference(image).domain == DEFAULT_REGISTRY_HOST):
        return problem
    return BuildError(
        f"Unable to find existing Replicate model for {image}. Go to replicate.com and create a new model before "
        "pushing.",
        hint="If the model already exists, log in as its owner with `cogkit login`, as the user that pushes.",
        detail=problem.message,
    )


def model_page(image: str) -> str | None:
    """The web page of a model that was pushed to Replicate's registry; None for any other."""
    reference = parse_reference(image)
    return f"{REPLICATE_WEBSITE}/{reference.path}" if reference.domain == DEFAULT_REGISTRY_HOST else None
