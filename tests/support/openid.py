"""A provider of OpenID Connect, on a socket of its own: it consents for everybody, and lies as it is told."""

import base64
import hashlib
import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, OctKey, RSAKey

CLIENT_ID, CLIENT_SECRET = "gapless-console", "canary-of-the-openid-client"


def new_key() -> RSAKey:
    """Return a key pair with an id."""
    return RSAKey.generate_key(2048, {"kid": secrets.token_hex(4), "use": "sig"})


@dataclass
class OpenIdProvider:
    """What the provider knows, and how it answers."""

    url: str = ""
    claims: dict[str, Any] = field(default_factory=dict)
    """What it says of whoever signs in next, beside what every token has; None leaves a claim out."""
    key: RSAKey = field(default_factory=new_key)
    published: list[RSAKey] = field(default_factory=list)
    """The keys that it shows; empty: its own."""
    forged: str = ""
    """How the token is signed: "": well; or `none`, `hs256`, `unknown key`."""
    metadata: dict[str, Any] = field(default_factory=dict)
    """What its discovery document says instead."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """The paths of the requests."""
    answer: tuple[int, bytes] | None = None
    """What it answers to everything; None: what the standard says."""

    def discovery(self) -> dict[str, Any]:
        """Return its addresses."""
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize?tenant=acme",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        } | self.metadata

    def consent(self, query: dict[str, str]) -> str:
        """Return the address to which the browser is led back."""
        code = secrets.token_urlsafe(16)
        self.codes[code] = query
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state'], 'iss': self.url})}"

    def exchange(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        """Return the tokens for a code, once."""
        asked = self.codes.pop(form.get("code", ""), None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if (
            asked is None
            or challenge.decode().rstrip("=") != asked["code_challenge"]
            or (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET)
        ):
            return 400, {"error": "invalid_grant"}
        return 200, {"access_token": "unused", "token_type": "Bearer", "id_token": self.token(asked["nonce"])}

    def token(self, nonce: str) -> str:
        """Return a token about whoever signs in."""
        now = int(time.time())
        usual = {"iss": self.url, "aud": CLIENT_ID, "sub": "u-1", "iat": now, "exp": now + 300, "nonce": nonce}
        claims = {name: value for name, value in (usual | self.claims).items() if value is not None}
        if self.forged == "none":
            parts = [json.dumps(each).encode() for each in ({"alg": "none"}, claims)]
            return ".".join(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in parts) + "."
        if self.forged == "hs256":
            return jwt.encode({"alg": "HS256", "kid": self.key.kid}, claims, OctKey.import_key(CLIENT_SECRET))
        key = new_key() if self.forged == "unknown key" else self.key
        return jwt.encode({"alg": "RS256", "kid": key.kid}, claims, key)

    def handle(self, method: str, path: str, body: str) -> tuple[int, bytes, dict[str, str]]:
        """Return status, body and headers of the answer to a request."""
        url = urlsplit(path)
        self.asked.append(url.path)
        if self.answer is not None:
            return *self.answer, {"location": f"{self.url}/elsewhere"}
        if url.path == "/authorize":
            query = {name: values[0] for name, values in parse_qs(url.query).items()}
            return 302, b"", {"location": self.consent(query)}
        if url.path == "/token" and method == "POST":
            status, answer = self.exchange({name: values[0] for name, values in parse_qs(body).items()})
            return status, json.dumps(answer).encode(), {}
        if url.path == "/keys":
            shown = KeySet([*(self.published or [self.key])]).as_dict(private=False)
            return 200, json.dumps(shown).encode(), {}
        if url.path == "/.well-known/openid-configuration":
            return 200, json.dumps(self.discovery()).encode(), {}
        return 404, b"", {}

    @contextmanager
    def serve(self) -> Iterator["OpenIdProvider"]:
        """Listen on a free port."""
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("")

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["content-length"])).decode())

            def _answer(self, body: str) -> None:
                status, content, headers = provider.handle(self.command, self.path, body)
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(content))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{cast('tuple[str, int]', server.server_address)[1]}"
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()
