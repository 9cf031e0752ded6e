"""One recorded situation of a provider: a webhook, the pages that list it, and what must come of them.

A folder holds `scenario.toml`, `webhook.json` (the body, byte for byte), `headers.json`, `pages/*.json`
in the order of the walk, and `expected.json`. Folders inside it that have a `scenario.toml` are further
scenarios of the same provider. Keys of `scenario.toml`:

    kind             the provider
    source           where the fixture comes from, and when it was read
    now              the time at which the webhook was received
    window           {start, end} of the pass that reads the pages
    stream           the stream of the webhook and the pages; "" for the account itself
    first_url        the address that the first request must have, parameters in any order
    records          dotted path of the events in a page
    stale_after_s    age in seconds at which the webhook's signature is refused; absent: the vendor signs no time
    options          options that are no secrets
    secrets          options that are: a text, or a list of texts
    signed_with      name of the option whose first secret signed the webhook
"""

# ruff: noqa: S101 - assertions are what a contract suite is made of

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import Provider, RemoteEvent, Secret, WebhookRequest, Window


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """One event that the pages must give."""

    key: str
    type: str
    occurred_at: datetime
    object_key: str | None

    @classmethod
    def of(cls, event: RemoteEvent) -> "Expected":
        """What a listed event comes to."""
        return cls(key=event.key, type=event.type, occurred_at=event.occurred_at, object_key=event.object_key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A provider and what it meets. Frozen: a rule that needs another situation takes a `replace` of it."""

    name: str
    kind: str
    now: datetime
    window: Window
    stream: str
    first_url: str
    records: str
    stale_after: timedelta | None
    options: Mapping[str, object]
    secrets: Mapping[str, tuple[str, ...]]
    signed_with: str
    webhook: WebhookRequest
    pages: tuple[bytes, ...]
    expected: tuple[Expected, ...]
    provider_type: type[Any] | None = None
    """Another class than the registry's, with the same options."""

    def provider(self, *, webhook_secrets: Sequence[str] | None = None) -> Provider:
        """A new provider; `webhook_secrets` in place of the scenario's own."""
        table: dict[str, object] = dict(self.options)
        secrets = dict(self.secrets)
        if webhook_secrets is not None:
            secrets[self.signed_with] = tuple(webhook_secrets)
        many = registry.secret_fields(self.kind)
        for name, texts in secrets.items():
            table[name] = tuple(Secret(text) for text in texts) if many[name] == "many" else Secret(texts[0])
        if self.provider_type is None:
            return registry.build(self.kind, table)
        built: Provider = self.provider_type(registry.read_options(self.kind, table))
        return built

    def with_provider(self, provider_type: type[Any]) -> "Scenario":
        """The same situation met by another class."""
        return replace(self, provider_type=provider_type)

    @property
    def signing_secret(self) -> str:
        """The secret that signed the webhook."""
        return self.secrets[self.signed_with][0]


def load_scenarios(folder: Path) -> tuple[Scenario, ...]:
    """The scenario in `folder` and those in the folders inside it. Raises `FileNotFoundError` if there is none."""
    found = sorted(folder.rglob("scenario.toml"))
    if not found:
        raise FileNotFoundError(f"{folder} has no scenario.toml; every provider needs a fixture folder")
    return tuple(load_scenario(path.parent) for path in found)


def load_scenario(folder: Path) -> Scenario:
    """The scenario in `folder`."""
    table = tomllib.loads((folder / "scenario.toml").read_text())
    stale_after_s = table.get("stale_after_s")
    headers: dict[str, str] = json.loads((folder / "headers.json").read_text())
    return Scenario(
        name=folder.name,
        kind=table["kind"],
        now=table["now"].astimezone(UTC),
        window=Window(start=table["window"]["start"].astimezone(UTC), end=table["window"]["end"].astimezone(UTC)),
        stream=table["stream"],
        first_url=table["first_url"],
        records=table["records"],
        stale_after=None if stale_after_s is None else timedelta(seconds=stale_after_s),
        options=table.get("options", {}),
        secrets={name: _several(value) for name, value in table["secrets"].items()},
        signed_with=table["signed_with"],
        webhook=make_request(headers, (folder / "webhook.json").read_bytes()),
        pages=tuple(path.read_bytes() for path in sorted((folder / "pages").glob("*.json"))),
        expected=tuple(_expected(row) for row in json.loads((folder / "expected.json").read_text())),
    )


def make_request(headers: Mapping[str, str], body: bytes) -> WebhookRequest:
    """A webhook as a server would hand it on."""
    pairs = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in headers.items())
    return WebhookRequest(headers=pairs, body=body)


def make_response(request: httpx.Request, body: bytes, status: int = 200, **headers: str) -> httpx.Response:
    """An answer of the API to `request`; underscores in header names stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=body, headers=named, request=request)


def walk(provider: Provider, scenario: Scenario, window: Window | None = None) -> list[RemoteEvent]:
    """Every event of the scenario's pages, in the order of the walk. `AssertionError` if a page is left unread."""
    within = window or scenario.window
    events: list[RemoteEvent] = []
    request: httpx.Request | None = provider.first_request(scenario.stream, within)
    for number, body in enumerate(scenario.pages, start=1):
        assert request is not None, f"the walk ended after {number - 1} of {len(scenario.pages)} pages"
        page = provider.read_page(request, make_response(request, body), scenario.stream, within)
        events += page.events
        request = page.next
    return events


def _several(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(part) for part in value) if isinstance(value, list) else ()


def _expected(row: dict[str, Any]) -> Expected:
    occurred_at = datetime.fromisoformat(row["occurred_at"])
    return Expected(key=row["key"], type=row["type"], occurred_at=occurred_at, object_key=row["object_key"])
