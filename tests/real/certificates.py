"""A certificate authority, a server's and a client's certificate, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.real.tools import installed


@dataclass(frozen=True)
class Certificates:
    """Paths of PEM files. The server's certificate is for 127.0.0.1 and the name ``localhost``."""

    ca: Path
    server_cert: Path
    server_key: Path
    client_cert: Path
    client_key: Path


def make_certificates(directory: Path) -> Certificates:
    """Make a new authority and certificates signed by it in ``directory``."""
    directory.mkdir(parents=True, exist_ok=True)
    ca, ca_key = directory / "ca.pem", directory / "ca-key.pem"
    new_key: list[str | Path] = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    ca_extensions: list[str | Path] = ["-addext", "keyUsage=critical,keyCertSign"]
    _openssl(
        *new_key, "-x509", "-days", "2", "-subj", "/CN=test authority", *ca_extensions, "-keyout", ca_key, "-out", ca
    )
    paths: dict[str, tuple[Path, Path]] = {}
    for role in ("server", "client"):
        cert, key, request = (directory / f"{role}{suffix}" for suffix in (".pem", "-key.pem", ".csr"))
        extensions = directory / f"{role}.ext"
        names = "subjectAltName=IP:127.0.0.1,DNS:localhost\n" if role == "server" else ""
        extensions.write_text(f"{names}extendedKeyUsage={role}Auth\n")
        _openssl(*new_key, "-subj", f"/CN=test {role}", "-keyout", key, "-out", request)
        signing: list[str | Path] = ["x509", "-req", "-days", "2", "-CA", ca, "-CAkey", ca_key, "-CAcreateserial"]
        _openssl(*signing, "-extfile", extensions, "-in", request, "-out", cert)
        paths[role] = (cert, key)
    return Certificates(ca, *paths["server"], *paths["client"])


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run([installed("openssl"), *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {arguments[0]} failed: {done.stderr}")
