"""The formats of vendors that list what they tried to deliver, for the fake provider."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Final

from gapless_reconcilers.kit.contract import OWN_STREAM
from gapless_reconcilers.testing.fake.event_store import FakeEvent, Listing, ListSemantics, Query
from gapless_reconcilers.testing.fake.formats.plain import (
    written,
)
from gapless_reconcilers.testing.fake.formats.rest import semantics
from gapless_reconcilers.testing.fake.formats.vendor import FOREVER, NEWEST, VendorFormat, standard_headers
from gapless_reconcilers.testing.fake.http_server import ApiRequest
from gapless_reconcilers.testing.fake.provider import FakeState
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint

POLAR: Final = semantics(NEWEST, 90, most=100, default=10)
GITLAB: Final = semantics(NEWEST, 7, most=20, default=20)
RESEND: Final = semantics(NEWEST, FOREVER, most=100, default=20)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolarFormat(VendorFormat):
    """Polar: pages by number; a row has the text of the body."""

    semantics: ListSemantics = POLAR
    listing: ClassVar[tuple[str, str]] = ("GET", "/webhooks/deliveries")

    def read(self, request: ApiRequest, state: FakeState) -> Listing:
        limit = self.limit(request.param("limit"))
        return self.skipped(state, limit * (int(request.param("page") or 1) - 1), limit)

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        return {"items": [self.encode(event) for event in listing.events], "pagination": {"total_count": 9}}

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        at, text = written(event.occurred_at), json.dumps(self.body(event))
        row = {"id": event.key, "type": event.type, "payload": text, "created_at": at}
        return {"id": f"dlv_{event.number}", "created_at": at, "succeeded": True, "webhook_event": row}

    def body(self, event: FakeEvent) -> Any:
        return {"type": event.type, "timestamp": written(event.occurred_at), "data": {"id": event.object_id}}

    def sign_event(
        self, event: FakeEvent, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime  # noqa: ARG002
    ) -> Mapping[str, str]:  # fmt: skip
        return standard_headers(event, body, secret.encode(), now)


@dataclass(frozen=True, slots=True, kw_only=True)
class GitLabFormat(VendorFormat):
    """GitLab: pages by number; type and id of a webhook are in its headers."""

    semantics: ListSemantics = GITLAB
    listing: ClassVar[tuple[str, str]] = ("GET", "/projects/YOUR-PROJECT/hooks/YOUR-HOOK/events")

    def is_authorised(self, request: ApiRequest) -> bool:
        return request.headers.get("private-token") == self.token

    def read(self, request: ApiRequest, state: FakeState) -> Listing:
        limit = self.limit(request.param("per_page"))
        return self.skipped(state, limit * (int(request.param("page") or 1) - 1), limit)

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        return [self.encode(event) for event in listing.events]

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        headers = {"Idempotency-Key": event.key, "X-Gitlab-Event": event.type}
        row = {"request_headers": headers, "request_data": self.body(event)}
        return {"id": event.number, "response_status": "200", "created_at": written(event.occurred_at), **row}

    def body(self, event: FakeEvent) -> Any:
        return {"object_kind": "issue", "object_attributes": {"id": event.object_id}}

    def carried(self, event: FakeEvent) -> Mapping[str, str]:
        return {"Idempotency-Key": event.key, "X-Gitlab-Event": event.type}

    def sign_event(
        self, event: FakeEvent, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime  # noqa: ARG002
    ) -> Mapping[str, str]:  # fmt: skip
        return {"X-Gitlab-Token": secret}


@dataclass(frozen=True, slots=True, kw_only=True)
class ResendFormat(VendorFormat):
    """Resend: rows without bodies; the id of a webhook is in its headers."""

    semantics: ListSemantics = RESEND
    listing: ClassVar[tuple[str, str]] = ("GET", "/webhooks/YOUR-WEBHOOK/events")

    def query(self, request: ApiRequest) -> Query:
        return Query(stream=OWN_STREAM, limit=self.limit(request.param("limit")), after=request.param("after"))

    def page(self, listing: Listing, request: ApiRequest) -> Any:  # noqa: ARG002
        rows = [self.encode(event) for event in listing.events]
        return {"object": "list", "has_more": listing.has_more, "data": rows}

    def encode(self, event: FakeEvent) -> dict[str, Any]:
        return {"id": event.key, "type": event.type, "created_at": written(event.occurred_at), "status": "success"}

    def body(self, event: FakeEvent) -> Any:
        return {"type": event.type, "created_at": written(event.occurred_at), "data": {"email_id": event.object_id}}

    def sign_event(
        self, event: FakeEvent, body: bytes, secret: str, endpoint: FakeEndpoint, now: datetime  # noqa: ARG002
    ) -> Mapping[str, str]:  # fmt: skip
        signed = standard_headers(event, body, secret.encode(), now)
        return {name.replace("webhook", "svix"): value for name, value in signed.items()}
