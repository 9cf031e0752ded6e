"""What a provider is: values in, values out.

The required part is `Provider`. Each optional ability is a protocol of its own: the engine asks with
`isinstance`, so an ability is had by writing its methods.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, ClassVar, Protocol, runtime_checkable

import httpx

from gapless_reconcilers.kit.contract.capabilities import Capabilities
from gapless_reconcilers.kit.contract.values import (
    NO_EVIDENCE,
    Account,
    Batch,
    CannotRender,
    Evidence,
    MissingEvent,
    NeedsEvidence,
    Page,
    RecordedEvent,
    Registration,
    RemoteEvent,
    Reply,
    Secret,
    StreamPage,
    Subscription,
    WebhookMessage,
    WebhookRequest,
    Window,
)


@runtime_checkable
class Provider(Protocol):
    """One vendor, bound to one account's options. Built by `kind.Options`, see `registry.build`."""

    kind: ClassVar[str]
    """The module's name: config key, metric label, fixture folder."""
    Options: ClassVar[type[Any]]
    """A frozen `msgspec.Struct` with `forbid_unknown_fields`; secrets are `Secret`."""
    capabilities: Capabilities

    def auth(self) -> httpx.Auth | None:
        """The credentials; the engine applies them, so that no request a provider builds holds a secret."""
        ...

    def budget_scope(self) -> str:
        """Name of what the vendor's read budget is counted per; equal scopes share one budget. No secret in it."""
        ...

    def read_webhook(
        self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE
    ) -> Reply | NeedsEvidence:
        """Verify over the raw bytes, then parse. Any bad input whatever raises `WebhookRefused`.

        `NeedsEvidence` if that takes something which must be fetched and `evidence` lacks.
        """
        ...

    def render(
        self, event: RecordedEvent, target_url: str, secret: Secret, now: datetime
    ) -> WebhookMessage | CannotRender:
        """The event as the vendor would send it to `target_url`, signed with `secret` at `now`."""
        ...


@runtime_checkable
class ListsEvents(Protocol):
    """The vendor lists what happened: readings `window` and `walk`."""

    def first_request(self, stream: str, window: Window) -> httpx.Request:
        """The first page of all events that occurred in `window`. Same input, same request."""
        ...

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """The events of `response` (only those inside `window`) and the next request.

        Raises `UnexpectedShape` with the path of the field, never guesses.
        """
        ...


@runtime_checkable
class ConsumesEvents(Protocol):
    """The vendor hands events out and forgets them once they are acknowledged: reading `consume`."""

    def batch_request(self, cursor: str | None, wait: timedelta) -> httpx.Request:
        """Acknowledge what came before `cursor`, and ask for more, which may take the vendor up to `wait`."""
        ...

    def read_batch(self, response: httpx.Response, now: datetime) -> Batch:
        """What was handed out. Raises `UnexpectedShape`, and `NeedsOperator` while webhooks stand in the way."""
        ...


@runtime_checkable
class ReadsAccount(Protocol):
    """The vendor can say whose key this is."""

    def account_request(self) -> httpx.Request:
        """Ask who the read key belongs to."""
        ...

    def read_account(self, response: httpx.Response) -> Account:
        """Who it belongs to. Raises `UnexpectedShape`."""
        ...


@runtime_checkable
class ListsStreams(Protocol):
    """The account has parts that are listed by themselves, such as Connect accounts."""

    def streams_request(self) -> httpx.Request | None:
        """Ask for the other streams; None: the options say there are none."""
        ...

    def read_streams(self, request: httpx.Request, response: httpx.Response) -> StreamPage:
        """Their names. Raises `UnexpectedShape`."""
        ...


@runtime_checkable
class ReadsSubscription(Protocol):
    """The vendor can say which endpoint it sends to, and what."""

    def subscription_request(self) -> httpx.Request:
        """Ask for the endpoints that the account has."""
        ...

    def read_subscription(self, response: httpx.Response, webhook_url: str) -> Subscription:
        """The endpoint whose address is `webhook_url` (or ends in its path). Raises `UnexpectedShape`."""
        ...


@runtime_checkable
class RegistersEndpoint(Protocol):
    """Our endpoint can be made, and be mended, by request."""

    def register_request(self, webhook_url: str, types: Sequence[str], secret: Secret) -> httpx.Request:
        """Make an endpoint at `webhook_url` for `types` (empty: all), signed with `secret` if ours is to choose it."""
        ...

    def read_registration(self, response: httpx.Response) -> Registration:
        """What was made. Raises `UnexpectedShape`."""
        ...

    def repair_request(self, subscription: Subscription, webhook_url: str) -> httpx.Request | None:
        """Switch the endpoint on again; None: there is none to mend, it must be made anew."""
        ...


@runtime_checkable
class FetchesDetail(Protocol):
    """One event can be asked for."""

    def detail_request(self, missing: MissingEvent) -> httpx.Request:
        """Ask for the event."""
        ...

    def read_detail(self, missing: MissingEvent, response: httpx.Response) -> RemoteEvent:
        """The event, whole. Raises `UnexpectedShape`."""
        ...


@runtime_checkable
class AsksRedelivery(Protocol):
    """The vendor can be asked to send one event again."""

    def redelivery_request(self, missing: MissingEvent) -> httpx.Request:
        """Ask for the event's webhook."""
        ...


@runtime_checkable
class JudgesResponses(Protocol):
    """The vendor's refusals need more than the default table of statuses (`kit.statuses.judge`)."""

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """Raise the error that tells what to do, or return if the response can be read."""
        ...


@runtime_checkable
class NamesVersions(Protocol):
    """Payloads have API versions, and a listed payload may be of another one than the endpoint's."""

    def payload_version(self, payload: bytes) -> str | None:
        """The version that `payload` was rendered in; None: unknown."""
        ...

    def endpoint_version(self) -> str | None:
        """The version that the options name for our endpoint; None: unknown."""
        ...


@runtime_checkable
class WarnsAboutOptions(Protocol):
    """The options can be refused or doubted without asking the vendor."""

    def option_problems(self) -> list[str]:
        """One sentence per problem: what, got, wanted, next step. Empty: none."""
        ...
