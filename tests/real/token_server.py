"""A token service as registries have one: HTTP on the loopback address, tokens that docker-registry accepts.

It knows the GET with Basic authentication and the OAuth POST (distribution ``docs/spec/auth``), and keeps what it was
asked for tests to look at.
"""

from __future__ import annotations

import base64
import json
import secrets
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from tests.real.certificates import Certificates
from tests.real.tools import installed

ISSUER = "token service of the tests"


@dataclass(frozen=True)
class Asked:
    """One request for a token."""

    method: str
    path: str
    headers: Mapping[str, str]
    parameters: Mapping[str, list[str]]


@dataclass
class Answer:
    """What to answer instead of a token: a status, a body, headers."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


class TokenServer:
    """A token service that is running when the constructor returns.

    Args:
        directory: Its certificate is made there.
        users: Passwords by user; an identity token is the password of the user "".
        tls: Serve HTTPS with the server's certificate of these.

    Attributes:
        certificate: The bundle that a registry trusts.
        asked: All requests so far.
        post_status: Refuse POST with this status, as registries without it do.
        answer: Called first for each request; what it returns is answered instead of a token.
    """

    def __init__(self, directory: Path, users: Mapping[str, str], tls: Certificates | None = None):
        directory.mkdir(parents=True, exist_ok=True)
        self.users = dict(users)
        self.certificate = directory / "token.pem"
        self.asked: list[Asked] = []
        self.post_status: int | None = None
        self.answer: Callable[[Asked], Answer | None] = lambda asked: None
        key_path = directory / "token-key.pem"
        command = [installed("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-nodes", "-days", "2", "-subj", "/CN=tokens", "-keyout", str(key_path)]
        subprocess.run([*command, "-out", str(self.certificate)], check=True, capture_output=True)
        key = serialization.load_pem_private_key(key_path.read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        if tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls.server_cert, tls.server_key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "http" if tls is None else "https"
        self.realm = f"{scheme}://127.0.0.1:{self._server.server_address[1]}/token"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def registry_config(self, service: str) -> str:
        """The ``auth`` section of docker-registry's configuration."""
        return (
            f"auth: {{token: {{realm: '{self.realm}', service: '{service}', issuer: '{ISSUER}',"
            f" rootcertbundle: {self.certificate}}}}}\n"
        )

    def respond(self, asked: Asked) -> Answer:
        """A token for who gave the right password, a refusal for others."""
        self.asked.append(asked)
        special = self.answer(asked)
        if special is not None:
            return special
        if asked.method == "POST" and self.post_status is not None:
            return Answer(self.post_status)
        user, password = _who(asked)
        if self.users.get(user) != password:
            details = {"errors": [{"code": "UNAUTHORIZED", "message": f"wrong password {password}"}]}
            return Answer(401, json.dumps(details).encode())
        scopes = " ".join(asked.parameters.get("scope", [])).split()
        token = self._token(user, asked.parameters["service"][0], scopes)
        name = "access_token" if asked.method == "POST" else "token"
        return Answer(200, json.dumps({name: token, "expires_in": 120, "issued_at": _now()}).encode())

    def _token(self, user: str, service: str, scopes: list[str]) -> str:
        der = base64.b64encode(
            base64.b64decode("".join(self.certificate.read_text().split("-----")[2].split()))
        ).decode()
        header = {"typ": "JWT", "alg": "ES256", "x5c": [der]}
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": user, "aud": service, "exp": now + 120, "nbf": now - 10, "iat": now}
        claims |= {"jti": secrets.token_hex(8)}
        signed = f"{_encoded(header)}.{_encoded({**claims, 'access': access})}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _who(asked: Asked) -> tuple[str, str]:
    if asked.method == "POST":
        kind = asked.parameters["grant_type"][0]
        if kind == "refresh_token":
            return "", asked.parameters["refresh_token"][0]
        return asked.parameters["username"][0], asked.parameters["password"][0]
    scheme, _, pair = asked.headers.get("authorization", "").partition(" ")
    if scheme != "Basic":
        return "", ""
    user, _, password = base64.b64decode(pair).decode().partition(":")
    return user, password


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _encoded(content: Mapping[str, Any]) -> str:
    return _base64url(json.dumps(content).encode())


def _base64url(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _handler(server: TokenServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._respond(urlsplit(self.path).query)

        def do_POST(self) -> None:
            self._respond(self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode())

        def _respond(self, query: str) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            asked = Asked(self.command, urlsplit(self.path).path, headers, parse_qs(query, keep_blank_values=True))
            answer = server.respond(asked)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    return Handler
