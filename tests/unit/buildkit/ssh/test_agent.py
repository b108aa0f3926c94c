"""The ssh-agent protocol: framing, what a build may ask, and signatures of keys from files."""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from cogkit.buildkit.ssh.agent import (
    MAX_MESSAGE,
    AgentProtocolError,
    Keyring,
    MessageReader,
    framed,
    refusal,
)
from cogkit.buildkit.ssh.key import load_key
from cogkit.errors import UsageError

Private = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

FAILURE = b"\x05"


def make(kind: str) -> Private:
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    curves: dict[str, Callable[[], ec.EllipticCurve]] = {
        "p256": ec.SECP256R1,
        "p384": ec.SECP384R1,
        "p521": ec.SECP521R1,
        "k256": ec.SECP256K1,
    }
    return ec.generate_private_key(curves[kind]())


def write(key: Private | dsa.DSAPrivateKey, path: Path, form: str = "OpenSSH", password: bytes | None = None) -> Path:
    protection = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    formats = serialization.PrivateFormat
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, getattr(formats, form), protection))
    return path


def public_blob(key: Private) -> bytes:
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return b64decode(line.split()[1])


def string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def strings(data: bytes) -> list[bytes]:
    found = []
    while data:
        (size,) = struct.unpack_from(">I", data)
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def sign_request(blob: bytes, data: bytes, flags: int = 0) -> bytes:
    return b"\x0d" + string(blob) + string(data) + struct.pack(">I", flags)


def signature(answer: bytes) -> tuple[bytes, bytes]:
    """Algorithm and signature of a sign response."""
    assert answer[0] == 14
    (blob,) = strings(answer[1:])
    algorithm, value = strings(blob)
    return algorithm, value


# ---- framing


@given(st.lists(st.binary(min_size=1, max_size=40)), st.data())
def test_messages_come_out_whole_wherever_the_stream_is_cut(messages: list[bytes], choice: st.DataObject) -> None:
    stream = b"".join(map(framed, messages))
    reader, found = MessageReader(), list[bytes]()
    while stream:
        cut = choice.draw(st.integers(1, len(stream)))
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert found == messages


@pytest.mark.parametrize("size", [0, MAX_MESSAGE + 1, 0xFFFFFFFF])
def test_message_of_no_or_too_many_bytes_is_an_error_before_it_is_kept(size: int) -> None:
    with pytest.raises(AgentProtocolError):
        list(MessageReader().feed(struct.pack(">I", size)))


# ---- what may be asked


def test_only_listing_and_signing_pass_to_the_users_agent() -> None:
    assert [kind for kind in range(256) if refusal(bytes([kind])) is None] == [11, 13]


@pytest.mark.parametrize(
    "kind", [17, 18, 19, 20, 21, 22, 23, 25, 26], ids=lambda kind: f"add, remove, lock or the like ({kind})"
)
def test_what_changes_an_agent_fails(kind: int) -> None:
    assert refusal(bytes([kind]) + b"\0\0\0\0") == FAILURE
    assert Keyring([]).answer(bytes([kind]) + b"\0\0\0\0") == FAILURE


def test_extensions_fail_in_their_own_way_and_old_keys_are_none() -> None:
    assert refusal(b"\x1b" + string(b"session-bind@openssh.com")) == b"\x1c"
    assert refusal(b"\x01") == b"\x02\0\0\0\0"


# ---- keys from files


@pytest.mark.parametrize("kind", ["ed25519", "rsa", "p256", "p384", "p521"])
def test_keys_are_listed_as_they_are_in_authorized_keys(kind: str, tmp_path: Path) -> None:
    keys = [make(kind), make("ed25519")]
    keyring = Keyring(load_key(write(key, tmp_path / str(number))) for number, key in enumerate(keys))
    answer = keyring.answer(b"\x0b")
    assert answer[:5] == b"\x0c" + struct.pack(">I", 2)
    assert strings(answer[5:])[::2] == [public_blob(key) for key in keys]


@pytest.mark.parametrize(
    ("flags", "algorithm", "digest"),
    [
        (0, b"ssh-rsa", hashes.SHA1()),
        (2, b"rsa-sha2-256", hashes.SHA256()),
        (4, b"rsa-sha2-512", hashes.SHA512()),
        (6, b"rsa-sha2-512", hashes.SHA512()),
    ],
)
def test_flags_choose_the_hash_of_an_rsa_signature(
    flags: int, algorithm: bytes, digest: hashes.HashAlgorithm, tmp_path: Path
) -> None:
    key = make("rsa")
    assert isinstance(key, rsa.RSAPrivateKey)
    keyring = Keyring([load_key(write(key, tmp_path / "key"))])
    found, value = signature(keyring.answer(sign_request(public_blob(key), b"data", flags)))
    assert found == algorithm
    key.public_key().verify(value, b"data", padding.PKCS1v15(), digest)


@pytest.mark.parametrize(
    ("kind", "algorithm", "digest"),
    [
        ("p256", b"ecdsa-sha2-nistp256", hashes.SHA256()),
        ("p384", b"ecdsa-sha2-nistp384", hashes.SHA384()),
        ("p521", b"ecdsa-sha2-nistp521", hashes.SHA512()),
    ],
)
def test_ecdsa_signature_is_two_positive_numbers(
    kind: str, algorithm: bytes, digest: hashes.HashAlgorithm, tmp_path: Path
) -> None:
    key = make(kind)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    keyring = Keyring([load_key(write(key, tmp_path / "key"))])
    for number in range(20):  # about half of the numbers have their top bit set
        data = b"%d" % number
        found, value = signature(keyring.answer(sign_request(public_blob(key), data)))
        r, s = (int.from_bytes(part, "big", signed=True) for part in strings(value))
        assert found == algorithm
        key.public_key().verify(encode_dss_signature(r, s), data, ec.ECDSA(digest))


def test_ed25519_signs(tmp_path: Path) -> None:
    key = make("ed25519")
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    keyring = Keyring([load_key(write(key, tmp_path / "key"))])
    algorithm, value = signature(keyring.answer(sign_request(public_blob(key), b"data")))
    assert algorithm == b"ssh-ed25519"
    key.public_key().verify(value, b"data")


def test_key_that_is_not_there_and_a_torn_request_fail(tmp_path: Path) -> None:
    key = make("ed25519")
    keyring = Keyring([load_key(write(key, tmp_path / "key"))])
    whole = sign_request(public_blob(key), b"data")
    assert keyring.answer(sign_request(public_blob(make("ed25519")), b"data")) == FAILURE
    assert all(keyring.answer(whole[:size]) == FAILURE for size in range(1, len(whole)) if whole[0] == 13)
    assert keyring.answer(whole + b"more") == FAILURE


@pytest.mark.parametrize("form", ["TraditionalOpenSSL", "PKCS8"])
def test_pem_keys_are_read_as_well(form: str, tmp_path: Path) -> None:
    key = make("rsa")
    assert load_key(write(key, tmp_path / "key", form)).public_blob == public_blob(key)


@pytest.mark.parametrize("form", ["OpenSSH", "TraditionalOpenSSL", "PKCS8"])
def test_key_with_a_passphrase_is_refused_with_the_way_out(form: str, tmp_path: Path) -> None:
    path = write(make("rsa"), tmp_path / "key", form, b"passphrase")
    with pytest.raises(UsageError, match="needs a passphrase") as caught:
        load_key(path)
    assert caught.value.hint == f"add it to an agent (ssh-add {path}) and forward that"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not an SSH key"),
        (b"ssh-ed25519 AAAA me@here", "is not an SSH key"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "is not an SSH key"),
        (b"x" * 200_000, "too large"),
    ],
)
def test_file_that_is_no_private_key_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(UsageError, match=message):
        load_key(tmp_path / "key")
    with pytest.raises(UsageError, match="cannot read the SSH key"):
        load_key(tmp_path / "gone")


def test_kinds_that_ssh_has_no_more_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neither RSA, ECDSA nor Ed25519"):
        load_key(write(dsa.generate_private_key(2048), tmp_path / "dsa", "PKCS8"))
    with pytest.raises(UsageError, match="curve"):
        load_key(write(make("k256"), tmp_path / "k256", "PKCS8"))


def test_private_half_is_in_no_repr(tmp_path: Path) -> None:
    key = load_key(write(make("ed25519"), tmp_path / "key"))
    assert "private" not in repr(key).lower()
