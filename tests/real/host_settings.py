"""What lets this machine reach package registries, carried into the test images.

A build container has to reach PyPI and Debian's archive the way the machine does: through the same index, proxy and
certificate authorities.  Only settings that say how to reach a registry are carried; a value that is a path on this
machine is carried only where the file itself is.
"""

from __future__ import annotations

import configparser
import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

from tests.real.image import TarEntry

DEBIAN_RELEASE = "bookworm"

_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT")
_VARIABLES = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "PIP_PROXY", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES"),
    *("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INSECURE_HOST", "UV_HTTP_TIMEOUT"),
    *("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "all_proxy"),
)
_PIP_OPTIONS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")
_APT_OPTION = re.compile(r"Acquire::(https?::|Retries |Check-Valid-Until |Check-Date |ForceIPv)")


def environment() -> dict[str, str]:
    """Variables for the image's config."""
    carried = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    if _ca_bundle() is not None:
        carried |= {name: _CA_BUNDLE for name in _CA_VARIABLES if name in os.environ}
    index = _pip_options().get("index-url")
    if index is not None and not carried.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"}:
        carried["UV_DEFAULT_INDEX"] = index
    return carried


def files() -> list[TarEntry]:
    """Files for the image's last layer."""
    found = []
    if (bundle := _ca_bundle()) is not None:
        found.append(TarEntry(_CA_BUNDLE[1:], bundle.read_bytes(), mode=0o644))
    if apt := [line for line in _output("apt-config", "dump") if _APT_OPTION.match(line) and '""' not in line]:
        found.append(TarEntry("etc/apt/apt.conf.d/99host", "\n".join([*apt, ""]).encode(), mode=0o644))
    if options := _pip_options():
        text = "\n".join(["[global]", *(f"{name} = {value}" for name, value in options.items()), ""])
        found.append(TarEntry("etc/pip.conf", text.encode(), mode=0o644))
    return found


def debian_sources() -> list[str]:
    """Lines of a ``sources.list`` for the images: this machine's own mirrors of Debian where it has them."""
    targets = _output("apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI) $(RELEASE)", "Created-By: Packages")
    sources = []
    for target in targets:
        origin, uri, release = target.split()
        if origin == "Debian" and release.split("-")[0] == DEBIAN_RELEASE and not uri.startswith("file:"):
            sources.append(f"deb {uri.rstrip('/')} {release} main")
    return sorted(set(sources)) or [
        f"deb http://deb.debian.org/debian {DEBIAN_RELEASE} main",
        f"deb http://deb.debian.org/debian {DEBIAN_RELEASE}-updates main",
        f"deb http://deb.debian.org/debian-security {DEBIAN_RELEASE}-security main",
    ]


def _ca_bundle() -> Path | None:
    candidates = (os.environ.get("SSL_CERT_FILE"), _CA_BUNDLE, ssl.get_default_verify_paths().cafile)
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)


def _pip_options() -> dict[str, str]:
    """What pip's configuration files say; its environment variables are carried as such."""
    inspected = subprocess.run(
        [sys.executable, "-m", "pip", "config", "debug"], capture_output=True, text=True, check=False
    ).stdout
    options: dict[str, str] = {}
    for path in re.findall(r"^  (/.*), exists: True$", inspected, re.MULTILINE):
        parser = configparser.RawConfigParser()
        parser.read(path, encoding="utf-8")
        for section in ("global", "install"):
            if parser.has_section(section):
                options |= {name: value for name, value in parser.items(section) if name in _PIP_OPTIONS}
    return options


def _output(*command: str) -> list[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []  # not a Debian machine: it has no such settings
