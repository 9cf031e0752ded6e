"""A vendor that is declared: a whole declaration to change, and the ready-made ones."""

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import Provider, Secret, Window
from gapless_reconcilers.providers.rest_list import RestList
from gapless_reconcilers.testing.suite.scenario import place, without_secrets

READY_MADE = sorted((Path(__file__).parents[2] / "reconcilers/gapless_reconcilers/declared").glob("*.toml"))
DECLARED = {path.stem: path for path in READY_MADE}
WINDOW = Window(start=datetime(2026, 11, 20, 11, 20, tzinfo=UTC), end=datetime(2026, 11, 20, 12, 20, tzinfo=UTC))


def declaration() -> dict[str, Any]:
    """A whole one, secrets resolved."""
    return {
        "base_url": "https://api.acme.example/",
        "auth": {"type": "bearer", "token": Secret("acme_do_not_show")},
        "event": {"type": "kind"},
        "webhook": {
            "signature": {"scheme": "hmac", "header": "X-Acme", "secret": [Secret("whsec_do_not_show")]},
        },
        "list": {
            "path": "/events",
            "records": "data",
            "order": "oldest_first",
            "params": {"since": "{window.start|rfc3339}"},
            "page": {"type": "cursor", "param": "after", "cursor": "data[-1].id", "more": "more"},
        },
    }


def changed(path: str, value: object) -> dict[str, Any]:
    """The declaration with another value at the dotted `path`; `...` takes it away."""
    whole = declaration()
    *tables, last = path.split(".")
    table = whole
    for name in tables:
        table = table[name]
    if value is ...:
        del table[last]
    else:
        table[last] = value
    return whole


def build(table: dict[str, Any]) -> RestList:
    provider: Provider = registry.build("rest_list", table)
    assert isinstance(provider, RestList)
    return provider


def vendor_of(vector: dict[str, Any]) -> RestList:
    """The vendor as it is declared, with the vector's secret and address."""
    table = tomllib.loads(DECLARED[vector["declared"]].read_text())["source"][0]["options"]
    table = without_secrets(table, registry.secret_fields("rest_list"))
    signature = table["webhook"]["signature"] = vector.get("signature") or table["webhook"]["signature"]
    place(table, "webhook.signature.secret", [Secret(vector["secret"])])
    if "url" in signature:
        signature["url"] = vector["url"]
    if "audience" in vector:
        signature["claims"] = {"aud": vector["audience"]}
    if "origin" in vector:
        table["webhook"]["handshake"]["when"] = {"header:WebHook-Request-Origin": vector["origin"]}
    if "token_at" in table["webhook"].get("handshake", {}):
        place(table, "webhook.handshake.token", Secret(vector["secret"]))
    for name in ("token", "key", "username", "password", "secret") if "auth" in table else ():
        if table["auth"]["type"] in CREDENTIALS.get(name, ()):
            place(table, f"auth.{name}", Secret("unused"))
    return build(table)


CREDENTIALS = {
    "token": ("bearer", "header", "query"), "key": ("query",), "username": ("basic",), "password": ("basic",),
    "secret": ("client_credentials",),
}  # fmt: skip
