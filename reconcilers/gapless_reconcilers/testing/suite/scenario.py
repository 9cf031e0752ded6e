"""One recorded situation of a provider: a webhook, the pages that list it, and the expected events.

A folder holds `scenario.toml`, `webhook.json` (the body, byte for byte) and `headers.json`. If the
provider lists: `pages/*.json` in the order of the walk (with headers that matter in a `*.headers` of the
same name, as JSON), and `expected.json`. If it fetches detail: `details/*.json`, one for each event of
`expected.json`, in its order. If it needs evidence: `evidence/*`. Folders inside it that have a
`scenario.toml` are further scenarios of the same provider. Keys of `scenario.toml`:

    kind             the provider
    source           where the fixture comes from, and when it was read
    now              the time at which the webhook was received
    window           {start, end} of the pass that reads the pages
    stream           the stream of the webhook and the pages; "" for the account itself
    first_url        the address that the first request must have, parameters in any order
    first_json       the JSON body that it must have; absent: it is not compared
    records          dotted path of the events in a page; "" if a page is an array
    stale_after_s    age in seconds at which the webhook's signature is refused; absent: the time is not signed
    options_file     a file whose first `[[source]]` has the options, relative to the folder; its secrets are left out
    options          further options that are no secrets; a dotted name is one in a table
    secrets          options that are secrets: a text, or a list of texts; dotted names too
    signed_with      name of the option whose first value signed the webhook, or identifies the signer
    evidence         {cache key of the evidence that the webhook needs = file in `evidence`}
    query            the query of the address that the webhook was sent to; absent: it has none
    handshake        a table for each request that proves our endpoint: method, query, headers, body; is_signed, if it
                     must be refused with another secret; the answer's status (200), answer_body, answer_headers;
                     offers, the secret that it tells us
"""

# ruff: noqa: S101 - assertions are what a contract suite is made of

import copy
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from gapless_reconcilers.kit import registry
from gapless_reconcilers.kit.contract import (
    Coverage,
    ListsEvents,
    NeedsEvidence,
    Provider,
    Reading,
    RemoteEvent,
    Reply,
    Secret,
    WebhookRequest,
    Window,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """One event that the pages must have."""

    key: str
    type: str
    occurred_at: datetime
    object_key: str | None
    object_version: int | None = None

    @classmethod
    def of(cls, event: RemoteEvent) -> "Expected":
        """Return the expected values for a listed event."""
        return cls(**{name: getattr(event, name) for name in cls.__dataclass_fields__})


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedPage:
    """One recorded response of the list."""

    body: bytes
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handshake:
    """One request with which the vendor proves our endpoint, and the answer that it documents."""

    request: WebhookRequest
    is_signed: bool
    status: int
    body: bytes
    headers: Mapping[str, str]
    offers: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A provider and its recorded inputs. Frozen: a rule that needs another situation makes a `replace`."""

    name: str
    kind: str
    now: datetime
    window: Window
    stream: str
    first_url: str
    first_json: object
    records: str
    stale_after: timedelta | None
    options: Mapping[str, object]
    secrets: Mapping[str, tuple[str, ...]]
    signed_with: str
    webhook: WebhookRequest
    evidence: Mapping[str, bytes]
    pages: tuple[RecordedPage, ...]
    details: tuple[bytes, ...]
    expected: tuple[Expected, ...]
    handshakes: tuple[Handshake, ...] = ()
    provider_type: type[Any] | None = None
    """A class to use instead of the registry's, with the same options."""

    def provider(self, *, webhook_secrets: Sequence[str] | None = None) -> Provider:
        """Return a new provider; `webhook_secrets` replace the scenario's own."""
        table: dict[str, Any] = copy.deepcopy(dict(self.options))
        secrets = dict(self.secrets)
        many = registry.secret_fields(self.kind)
        if webhook_secrets is not None and self.signed_with in many:
            secrets[self.signed_with] = tuple(webhook_secrets)
        elif webhook_secrets is not None:
            place(table, self.signed_with, list(webhook_secrets))
        for name, texts in secrets.items():
            known = tuple(Secret(text) for text in texts)
            place(table, name, known if many[name] == "many" else known[0])
        if self.provider_type is None:
            return registry.build(self.kind, table)
        built: Provider = self.provider_type(registry.read_options(self.kind, table))
        return built

    def lister(self) -> ListsEvents:
        """Return a new provider as `ListsEvents`."""
        provider = self.provider()
        assert isinstance(provider, ListsEvents), f"{self.kind} lists nothing"
        return provider

    @property
    def lists(self) -> bool:
        """True if the provider has a list that can be read again."""
        provider = self.provider()
        return isinstance(provider, ListsEvents) and provider.capabilities.coverage is not Coverage.NONE

    def with_provider(self, provider_type: type[Any]) -> "Scenario":
        """Return the same situation for another class."""
        return replace(self, provider_type=provider_type)

    @property
    def signing_secret(self) -> str:
        """The secret that signed the webhook, or the value that identifies the signer."""
        return (self.secrets.get(self.signed_with) or _several(self.options[self.signed_with]))[0]


def load_scenarios(folder: Path) -> tuple[Scenario, ...]:
    """Return the scenarios in `folder` and in the folders inside it. Raises `FileNotFoundError` if there are none."""
    found = sorted(folder.rglob("scenario.toml"))
    if not found:
        raise FileNotFoundError(f"{folder} has no scenario.toml; every provider needs a fixture folder")
    return tuple(load_scenario(path.parent) for path in found)


def load_scenario(folder: Path) -> Scenario:
    """Return the scenario in `folder`."""
    table = tomllib.loads((folder / "scenario.toml").read_text())
    stale_after_s = table.get("stale_after_s")
    headers: dict[str, str] = json.loads((folder / "headers.json").read_text())
    return Scenario(
        name=folder.name,
        kind=table["kind"],
        now=table["now"].astimezone(UTC),
        window=Window(start=table["window"]["start"].astimezone(UTC), end=table["window"]["end"].astimezone(UTC)),
        stream=table["stream"],
        first_url=table.get("first_url", ""),
        first_json=table.get("first_json"),
        records=table.get("records", ""),
        stale_after=None if stale_after_s is None else timedelta(seconds=stale_after_s),
        options=_options(folder, table),
        secrets={name: _several(value) for name, value in table.get("secrets", {}).items()},
        signed_with=table["signed_with"],
        webhook=make_request(headers, (folder / "webhook.json").read_bytes(), query=table.get("query", "")),
        evidence={key: (folder / "evidence" / name).read_bytes() for key, name in table.get("evidence", {}).items()},
        pages=tuple(_page(path) for path in _numbered(folder / "pages")),
        details=tuple(path.read_bytes() for path in _numbered(folder / "details")),
        expected=_expected(folder / "expected.json"),
        handshakes=tuple(_handshake(each) for each in table.get("handshake", ())),
    )


def place(table: dict[str, Any], name: str, value: object) -> None:
    """Put `value` into `table` under its dotted name."""
    *tables, last = name.split(".")
    for each in tables:
        table = table.setdefault(each, {})
    table[last] = value


def _options(folder: Path, table: Mapping[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if name := table.get("options_file"):
        declared = tomllib.loads((folder / name).read_text(encoding="utf-8"))["source"][0]
        options = without_secrets(declared["options"], registry.secret_fields(table["kind"]))
    for name, value in table.get("options", {}).items():
        place(options, name, value)
    return options


def without_secrets(table: Mapping[str, Any], secrets: Iterable[str], prefix: str = "") -> dict[str, Any]:
    """Return `table` without the names of variables and files from which secrets are read."""
    references = {f"{name}_{where}" for name in secrets for where in ("env", "file")}
    return {
        key: without_secrets(value, secrets, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in table.items()
        if prefix + key not in references
    }


def make_request(headers: Mapping[str, str], body: bytes, *, method: str = "POST", query: str = "") -> WebhookRequest:
    """Return a webhook as the server would pass it on."""
    pairs = tuple((name.lower().encode(), value.encode("latin-1")) for name, value in headers.items())
    return WebhookRequest(headers=pairs, body=body, method=method, query=query.encode())


def make_response(request: httpx.Request, body: bytes, status: int = 200, **headers: str) -> httpx.Response:
    """Return a response of the API to `request`; underscores in header names become hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=body, headers=named, request=request)


def answer(request: httpx.Request, page: RecordedPage) -> httpx.Response:
    """Return a recorded page as the response to `request`."""
    return httpx.Response(200, content=page.body, headers=page.headers, request=request)


def read(
    provider: Provider, scenario: Scenario, webhook: WebhookRequest | None = None, now: datetime | None = None
) -> Reply:
    """Return the provider's reply to the scenario's webhook, or to another; evidence that is not recorded is a 404.

    Raises `WebhookRefused`.
    """
    request, found = webhook or scenario.webhook, dict[str, httpx.Response]()
    while True:
        reply = provider.read_webhook(request, now or scenario.now, found)
        if not isinstance(reply, NeedsEvidence):
            return reply
        assert reply.cache_key not in found, f"{reply.cache_key} is requested again although it was passed"
        body = scenario.evidence.get(reply.cache_key)
        status = 404 if body is None else 200
        found[reply.cache_key] = make_response(reply.request, body or b"", status)


def walk(scenario: Scenario, window: Window | None = None) -> list[RemoteEvent]:
    """Return every event of the scenario's pages, in the order of the walk.

    `AssertionError` if a page is left unread, unless the walk may end above the window's start.
    """
    provider, within = scenario.lister(), window or scenario.window
    ends_early = window is not None and scenario.provider().capabilities.reading is Reading.WALK
    events: list[RemoteEvent] = []
    request: httpx.Request | None = provider.first_request(scenario.stream, within)
    for number, recorded in enumerate(scenario.pages, start=1):
        if request is None and ends_early:
            break
        assert request is not None, f"the walk ended after {number - 1} of {len(scenario.pages)} pages"
        page = provider.read_page(request, answer(request, recorded), scenario.stream, within)
        events += page.events
        request = page.next
    return events


def _handshake(table: Mapping[str, Any]) -> Handshake:
    request = make_request(
        table.get("headers", {}), table.get("body", "").encode(), method=table["method"], query=table.get("query", "")
    )
    return Handshake(
        request=request,
        is_signed=table.get("is_signed", False),
        status=table.get("status", 200),
        body=table.get("answer_body", "").encode(),
        headers=table.get("answer_headers", {}),
        offers=table.get("offers"),
    )


def _numbered(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def _page(path: Path) -> RecordedPage:
    headers = path.with_suffix(".headers")
    return RecordedPage(body=path.read_bytes(), headers=json.loads(headers.read_text()) if headers.exists() else {})


def _several(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(str(part) for part in value) if isinstance(value, list) else ()


def _expected(path: Path) -> tuple[Expected, ...]:
    rows = json.loads(path.read_text()) if path.exists() else []
    return tuple(Expected(**{**row, "occurred_at": datetime.fromisoformat(row["occurred_at"])}) for row in rows)
