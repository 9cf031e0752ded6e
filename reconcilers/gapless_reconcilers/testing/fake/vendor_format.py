"""How one vendor's API looks: what the fake provider needs to speak it."""

import random
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from gapless_reconcilers.testing.fake.event_store import FakeEvent, Listing, ListSemantics, Query
from gapless_reconcilers.testing.fake.http_server import ApiAnswer, ApiRequest
from gapless_reconcilers.testing.fake.webhook_sender import FakeEndpoint, Message


class VendorFormat(Protocol):
    """One vendor's format: how requests are read, answers and webhooks written."""

    @property
    def semantics(self) -> ListSemantics:
        """How the vendor's list behaves."""
        ...

    def event_key(self, number: int, chance: random.Random) -> str:
        """A fresh event key of the vendor's form."""
        ...

    def object_id(self, number: int, event_type: str) -> str:
        """The id of an object for an event that names none."""
        ...

    def is_authorised(self, request: ApiRequest) -> bool:
        """Whether the request carries the right credentials."""
        ...

    def answer(self, request: ApiRequest, shelf: "FakeState") -> ApiAnswer:
        """Read the request, ask the shelf, write the answer."""
        ...

    def refuse(self, status: int) -> ApiAnswer:
        """An error as the vendor words it."""
        ...

    def message(self, event: FakeEvent, endpoint: FakeEndpoint, now: datetime, *, genuine: bool) -> Message:
        """The webhook for `endpoint`; if not `genuine`, its signature is nobody's."""
        ...


class FakeState(Protocol):
    """What a wire may ask of the fake."""

    endpoints: list[FakeEndpoint]

    def add_endpoint(self, url: str, *, secret: str, types: Sequence[str], connect: bool) -> FakeEndpoint:
        """Subscribe `url`."""
        ...

    def read(self, query: Query) -> Listing:
        """A page, as the list shows it now. Raises `UnknownCursorError`."""
        ...

    def find(self, key: str) -> FakeEvent | None:
        """The event `key`, if the list shows it."""
        ...

    def streams(self) -> list[str]:
        """The streams other than the account's own."""
        ...

    def push(self, event: FakeEvent) -> None:
        """Send the webhook of `event` to all who take it, again perhaps."""
        ...
