"""A real registry (Debian's docker-registry) on a loopback port, and the little of its HTTP API that tests use."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import bcrypt

from tests.real.image import Image
from tests.real.process import ServerProcess, free_port, wait_until_listening
from tests.real.tools import installed

_MANIFESTS = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)


class Registry:
    """A registry that keeps its blobs in ``directory``; plain HTTP.

    Args:
        directory: Its blobs and its log are there.
        user: User and password that it wants (HTTP Basic); everyone may do everything if None.
        auth: The ``auth`` section of its configuration, if it is not to be made of ``user``.

    Attributes:
        host: ``127.0.0.1:PORT``, as it stands before the first ``/`` of an image name.
    """

    def __init__(self, directory: Path, *, user: tuple[str, str] | None = None, auth: str = "") -> None:
        self.directory = directory
        self._user = user
        self.port = free_port()
        self.host = f"127.0.0.1:{self.port}"
        directory.mkdir(parents=True, exist_ok=True)
        if user is not None:
            auth = f"auth: {{htpasswd: {{realm: tests, path: {_htpasswd(directory, *user)}}}}}\n"
        config = directory / "config.yml"
        config.write_text(
            f"""\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {directory / "blobs"}}}
  delete: {{enabled: true}}
http: {{addr: "{self.host}"}}
{auth}"""
        )
        self._server = ServerProcess(
            [installed("docker-registry"), "serve", str(config)], directory / "docker-registry.log"
        )
        wait_until_listening(self.port, self._server, "docker-registry")

    def stop(self) -> None:
        self._server.stop()

    def push(self, image: Image, *names: str) -> str:
        """Push an image under each ``repository:tag``; returns the manifest's digest."""
        config = image.config()
        manifest = image.manifest(config)
        for name in names:
            repository, _, tag = name.rpartition(":")
            for layer in image.layers:
                self._push_blob(repository, layer.digest, layer.path.read_bytes)
            self._push_blob(repository, _digest(config), lambda: config)
            self._request(
                "PUT", f"/v2/{repository}/manifests/{tag}", manifest, {"Content-Type": image.MEDIA_TYPE}, expect=201
            )
        return _digest(manifest)

    def manifest(self, repository: str, reference: str) -> dict[str, Any]:
        """The manifest or index that a tag or digest names."""
        found: dict[str, Any] = json.loads(self._fetch_manifest(repository, reference))
        return found

    def digest(self, repository: str, reference: str) -> str:
        """The digest of what a tag names."""
        return _digest(self._fetch_manifest(repository, reference))

    def config(self, repository: str, reference: str) -> dict[str, Any]:
        """The image config that a tag or digest leads to (for an index: of its first image)."""
        manifest = self.image_manifest(repository, reference)
        config: dict[str, Any] = json.loads(self.blob(repository, manifest["config"]["digest"]))
        return config

    def image_manifest(self, repository: str, reference: str) -> dict[str, Any]:
        """The image manifest that a tag or digest leads to (for an index: its first image)."""
        manifest = self.manifest(repository, reference)
        if "manifests" in manifest:
            manifest = self.manifest(repository, manifest["manifests"][0]["digest"])
        return manifest

    def blob(self, repository: str, digest: str) -> bytes:
        return self._request("GET", f"/v2/{repository}/blobs/{digest}", expect=200)[1]

    def tags(self, repository: str) -> list[str]:
        listing = json.loads(self._request("GET", f"/v2/{repository}/tags/list", expect=200)[1])
        return list(listing["tags"] or [])

    def _fetch_manifest(self, repository: str, reference: str) -> bytes:
        path = f"/v2/{repository}/manifests/{reference}"
        return self._request("GET", path, headers={"Accept": _MANIFESTS}, expect=200)[1]

    def _push_blob(self, repository: str, digest: str, read: Any) -> None:
        if self._request("HEAD", f"/v2/{repository}/blobs/{digest}")[0].status == 200:
            return
        started, _ = self._request("POST", f"/v2/{repository}/blobs/uploads/", expect=202)
        upload = urlsplit(started.headers["Location"])
        self._request("PUT", f"{upload.path}?{upload.query}&digest={digest}", read(), expect=201)

    def _authorization(self) -> dict[str, str]:
        if self._user is None:
            return {}
        return {"Authorization": f"Basic {b64encode(':'.join(self._user).encode()).decode()}"}

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        expect: int | None = None,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        for attempt in range(5):
            connection = http.client.HTTPConnection(self.host, timeout=60)
            try:
                connection.request(method, path, body, {**self._authorization(), **(headers or {})})
                response = connection.getresponse()
                content = response.read()
                break
            except ConnectionRefusedError:
                if attempt == 4:
                    raise
                time.sleep(0.1)
            finally:
                connection.close()
        if expect is not None and response.status != expect:
            raise RuntimeError(f"the registry answered {method} {path} with {response.status}: {content[:500]!r}")
        return response, content


def _htpasswd(directory: Path, user: str, password: str) -> Path:
    path = directory / "htpasswd"
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    path.write_text(f"{user}:{hashed}\n")
    return path


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
