"""COG_CA_CERT in its four forms."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from cogkit.dockerfile import read_ca_cert
from cogkit.errors import ConfigError

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"


def test_nothing_set_is_nothing() -> None:
    assert read_ca_cert("") == b""
    assert read_ca_cert("  \n") == b""


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(f"\n{PEM}\n\n")
    assert read_ca_cert(str(tmp_path / "ca.crt")) == f"{PEM}\n".encode()
    assert read_ca_cert("ca.crt", relative_to=tmp_path) == f"{PEM}\n".encode()


def test_a_folder_gives_its_certificates_in_the_order_of_their_names(tmp_path: Path) -> None:
    other = PEM.replace("MIIB", "OTHER")
    (tmp_path / "b.PEM").write_text(other)
    (tmp_path / "a.crt").write_text(PEM)
    (tmp_path / "readme.txt").write_text("no certificate")
    (tmp_path / "c.crt").mkdir()
    assert read_ca_cert(str(tmp_path)) == f"{PEM}\n{other}\n".encode()


def test_the_text_itself_and_in_base64() -> None:
    assert read_ca_cert(PEM) == f"{PEM}\n".encode()
    assert read_ca_cert(base64.b64encode(PEM.encode()).decode()) == f"{PEM}\n".encode()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("/nonexistent/ca.crt", "must be a file path, directory, PEM certificate, or base64-encoded PEM"),
        ("bm90aGluZw==", "must be a file path, directory, PEM certificate, or base64-encoded PEM"),
        ("-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----", "must start with '-----BEGIN CERTIFICATE-----'"),
        ("-----BEGIN CERTIFICATE-----\nx", "must contain '-----END CERTIFICATE-----'"),
        ("x" * 5000, "must be a file path"),
    ],
)
def test_what_is_no_certificate_is_told(value: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_ca_cert(value)
    assert message in caught.value.message
    assert caught.value.message.startswith("COG_CA_CERT: ")


def test_a_folder_without_certificates_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \.crt or \.pem files found in directory"):
        read_ca_cert(str(tmp_path))


def test_a_file_in_a_folder_that_is_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.crt").write_text("nonsense")
    with pytest.raises(ConfigError, match=r"bad\.crt"):
        read_ca_cert(str(tmp_path))
