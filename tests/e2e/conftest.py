"""End-to-end tests: cogkit's processes here find the shared real buildkitd by BUILDKIT_HOST."""

from __future__ import annotations

import pytest

from tests.real.buildkitd import Buildkitd


@pytest.fixture
def cogkit_env(buildkitd: Buildkitd) -> dict[str, str | None]:
    """BUILDKIT_HOST leads to `buildkitd`."""
    return {"BUILDKIT_HOST": buildkitd.address}
