"""What ``docs`` and ``deploy`` show of farms is what they say: lists that can be read, manifests that fit together."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from cogkit.builders.config_file import parse_builders
from cogkit.builders.programs import BUILDKIT_VERSION

REPOSITORY = Path(__file__).parents[3]
KUBERNETES = REPOSITORY / "deploy" / "kubernetes"
TOML = re.compile(r"```toml\n(.*?)```", re.DOTALL)
PAGES = ("builders", "farm")


def manifests() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        found += [each for each in yaml.safe_load_all(path.read_text()) if each]
    return found


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = (each for each in manifests() if each["kind"] == kind and each.get("metadata", {}).get("name") == name)
    return found


@pytest.mark.parametrize("page", PAGES)
def test_the_lists_in_the_documentation_can_be_read(page: str) -> None:
    blocks = TOML.findall((REPOSITORY / "docs" / f"{page}.md").read_text("utf-8"))
    assert blocks
    for block in blocks:
        parse_builders(block, Path(page))


def test_every_file_that_kustomize_is_told_of_is_there() -> None:
    for path in KUBERNETES.rglob("kustomization.yaml"):
        for resource in yaml.safe_load(path.read_text())["resources"]:
            assert (path.parent / resource).exists(), (path, resource)


def test_nodes_run_the_release_that_is_tested() -> None:
    (container,) = one("StatefulSet", "buildkitd")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"moby/buildkit:{BUILDKIT_VERSION}-rootless"


def test_the_daemons_configuration_is_toml_with_the_mounted_certificates() -> None:
    config = tomllib.loads(one("ConfigMap", "buildkitd")["data"]["buildkitd.toml"])
    stateful_set = one("StatefulSet", "buildkitd")["spec"]["template"]["spec"]
    mounts = {each["name"]: each["mountPath"] for each in stateful_set["containers"][0]["volumeMounts"]}
    for name in ("ca", "cert", "key"):
        assert config["grpc"]["tls"][name].startswith(f"{mounts['certificates']}/")
    volumes = {each["name"]: each for each in stateful_set["volumes"]}
    assert volumes["certificates"]["secret"]["secretName"] == one("Certificate", "buildkitd")["spec"]["secretName"]
    assert "tcp://0.0.0.0:1234" in config["grpc"]["address"]


def test_every_node_has_a_name_in_the_certificate() -> None:
    service = one("Service", "buildkitd")
    assert service["spec"]["clusterIP"] == "None"
    assert one("StatefulSet", "buildkitd")["spec"]["serviceName"] == service["metadata"]["name"]
    assert "*.buildkitd.buildkit.svc" in one("Certificate", "buildkitd")["spec"]["dnsNames"]


def test_what_is_scaled_and_selected_is_there() -> None:
    labels = one("StatefulSet", "buildkitd")["spec"]["template"]["metadata"]["labels"]
    for kind in ("Service", "PodDisruptionBudget", "PodMonitor"):
        selector = one(kind, "buildkitd")["spec"]["selector"]
        wanted = selector.get("matchLabels", selector)
        assert wanted.items() <= labels.items(), kind
    target = one("ScaledObject", "buildkitd")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("StatefulSet", "buildkitd")


def test_certificates_come_from_issuers_that_are_there() -> None:
    issuers = {each["metadata"]["name"] for each in manifests() if each["kind"] == "Issuer"}
    for each in manifests():
        if each["kind"] == "Certificate":
            assert each["spec"]["issuerRef"]["name"] in issuers
