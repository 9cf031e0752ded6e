"""The protocols of a provider: the required `Provider`, and one for each optional ability.

The engine checks for an ability with `isinstance`: a provider has it if it has its methods.
"""

from collections.abc import Mapping, Sequence
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
    Quota,
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
    """One vendor with the options of one account. Built by `kind.Options`, see `registry.build`."""

    kind: ClassVar[str]
    """The module's name: config key, metric label, fixture folder."""
    Options: ClassVar[type[Any]]
    """A frozen `msgspec.Struct` with `forbid_unknown_fields`; secrets are `Secret`."""
    capabilities: Capabilities

    def auth(self) -> httpx.Auth | None:
        """Return the credentials. The engine applies them, so that no request of a provider holds a secret."""
        ...

    def budget_scope(self) -> str:
        """Return the name of the scope of the read budget; sources with equal scopes share one budget. Not a secret."""
        ...

    def read_webhook(
        self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE
    ) -> Reply | NeedsEvidence:
        """Verify over the raw bytes, then parse. Any bad input raises `WebhookRefused`.

        Return `NeedsEvidence` if verifying needs a response that must be fetched and is not in `evidence`.
        """
        ...

    def render(
        self, event: RecordedEvent, target_url: str, secret: Secret, now: datetime
    ) -> WebhookMessage | CannotRender:
        """Return the event as the vendor would send it to `target_url`, signed with `secret` at `now`."""
        ...


@runtime_checkable
class ListsEvents(Protocol):
    """The vendor lists events: readings `window` and `walk`."""

    def first_request(self, stream: str, window: Window) -> httpx.Request:
        """Return the request for the first page of all events in `window`. Same input, same request."""
        ...

    def read_page(self, request: httpx.Request, response: httpx.Response, stream: str, window: Window) -> Page:
        """Return the events of `response` (only those inside `window`) and the next request.

        Raises `UnexpectedShape` with the path of the field; it never guesses.
        """
        ...


@runtime_checkable
class ListsFromOtherCuts(Protocol):
    """The same events can be listed in another way, such as with pages of another size or in the other order.

    The engine uses it only if a list lacks an event whose webhook came: a list that drops events where its pages meet
    may show them so.
    """

    def other_requests(self, stream: str, window: Window) -> Sequence[httpx.Request]:
        """Return other first requests for all events in `window`, the most promising first; `read_page` reads each.

        The pages that follow keep what is different about them.
        """
        ...


@runtime_checkable
class ConsumesEvents(Protocol):
    """The vendor hands events out and forgets them once they are acknowledged: reading `consume`."""

    def batch_request(self, cursor: str | None, wait: timedelta) -> httpx.Request:
        """Acknowledge the events before `cursor` and request more; the vendor may take up to `wait`."""
        ...

    def read_batch(self, response: httpx.Response, now: datetime) -> Batch:
        """Return the events handed out. Raises `UnexpectedShape`; `NeedsOperator` while webhooks prevent reading."""
        ...


@runtime_checkable
class ReadsAccount(Protocol):
    """The vendor can name the account of the read key."""

    def account_request(self) -> httpx.Request:
        """Request the account of the read key."""
        ...

    def read_account(self, response: httpx.Response) -> Account:
        """Return the account. Raises `UnexpectedShape`."""
        ...


@runtime_checkable
class ListsStreams(Protocol):
    """The account has parts that are listed separately, such as Connect accounts."""

    def streams_request(self) -> httpx.Request | None:
        """Request the other streams; None: the options say that there are none."""
        ...

    def read_streams(self, request: httpx.Request, response: httpx.Response) -> StreamPage:
        """Return their names. Raises `UnexpectedShape`."""
        ...


@runtime_checkable
class ReadsSubscription(Protocol):
    """The vendor can name the endpoint that it sends to, and the types that it sends."""

    def subscription_request(self) -> httpx.Request:
        """Request the endpoints of the account."""
        ...

    def read_subscription(self, response: httpx.Response, webhook_url: str) -> Subscription:
        """Return the endpoint whose address is `webhook_url` (or ends in its path). Raises `UnexpectedShape`."""
        ...


@runtime_checkable
class RegistersEndpoint(Protocol):
    """Our endpoint can be created and repaired by request."""

    def register_request(self, webhook_url: str, types: Sequence[str], secret: Secret) -> httpx.Request:
        """Create an endpoint at `webhook_url` for `types` (empty: all); `secret` signs, if we choose the secret."""
        ...

    def read_registration(self, response: httpx.Response) -> Registration:
        """Return the new endpoint. Raises `UnexpectedShape`."""
        ...

    def repair_request(self, subscription: Subscription, webhook_url: str) -> httpx.Request | None:
        """Switch the endpoint on again; None: there is none to repair, it must be created."""
        ...


@runtime_checkable
class FetchesDetail(Protocol):
    """The vendor can return one event."""

    def detail_request(self, missing: MissingEvent) -> httpx.Request:
        """Request the event."""
        ...

    def read_detail(self, missing: MissingEvent, response: httpx.Response) -> RemoteEvent:
        """Return the whole event. Raises `UnexpectedShape`."""
        ...


@runtime_checkable
class SendsThinEvents(FetchesDetail, Protocol):
    """Some of the vendor's webhooks name an event and do not carry its data, which `detail_request` asks for."""

    def is_thin(self, payload: bytes) -> bool:
        """Return True if the payload is that of such a webhook. Anything may stand in it."""
        ...


@runtime_checkable
class AsksRedelivery(Protocol):
    """The vendor can be asked to send one event again."""

    def redelivery_request(self, missing: MissingEvent) -> httpx.Request:
        """Request the event's webhook again."""
        ...


@runtime_checkable
class JudgesResponses(Protocol):
    """The vendor's refusals need more than the default table of statuses (`kit.statuses.judge`)."""

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """Raise the error that says how to go on, or return if the response can be read."""
        ...


@runtime_checkable
class ClaimsEvents(Protocol):
    """What a webhook claims to carry can be read although it is not verified: to explain it, never to record it."""

    def claimed_keys(self, request: WebhookRequest) -> tuple[str, ...]:
        """Return the keys of the events that `request` would carry if it were genuine; empty: none can be read.

        A stranger chooses what stands there, so it is quick whatever that is (`kit.decoders.peek`).
        Raises `WebhookRefused`.
        """
        ...


@runtime_checkable
class PreviewsWebhooks(Protocol):
    """What a webhook becomes can be shown without verifying it: for `gapless providers try`, never to record it."""

    def preview(self, request: WebhookRequest, now: datetime) -> tuple[RemoteEvent, ...]:
        """Return the events that `request` would carry if it were genuine. Raises `WebhookRefused`."""
        ...


@runtime_checkable
class ShowsQuota(Protocol):
    """The vendor says how many requests are left in another way than the usual headers (`kit.quotas`)."""

    def read_quota(self, response: httpx.Response, now: datetime) -> Quota | None:
        """Return what is left, as `response` says; None: it does not say so. Anything may stand in the response."""
        ...


@runtime_checkable
class ShowsGrant(Protocol):
    """The grant depends on events (`Grant.per_event`), and the vendor lists those alone."""

    def grant_request(self, stream: str, window: Window) -> httpx.Request:
        """Return the request for the first page of the events in `window` that earn requests; `read_page` reads it.

        The pages that follow show those events alone too.
        """
        ...


@runtime_checkable
class NamesVersions(Protocol):
    """Payloads have API versions, and a listed payload may have another version than the endpoint's."""

    def payload_version(self, payload: bytes) -> str | None:
        """Return the version of `payload`; None: unknown."""
        ...

    def endpoint_version(self) -> str | None:
        """Return the version that the options name for our endpoint; None: unknown."""
        ...


@runtime_checkable
class HasModes(Protocol):
    """The vendor has a live and a test mode, and its events name theirs: `RemoteEvent.livemode` is never None."""

    def own_livemode(self) -> bool:
        """Return the mode of this source; events of the other mode are recorded, and not delivered unless wanted."""
        ...


@runtime_checkable
class CarriesSecret(Protocol):
    """The vendor's webhooks carry a secret instead of a signature of the body. The engine never stores it."""

    def carried_secrets(self) -> Mapping[str, Sequence[str]]:
        """Return the accepted values of each header that carries a secret, by its name in lower case; empty: none."""
        ...


@runtime_checkable
class WarnsAboutOptions(Protocol):
    """Problems of the options can be found without a request to the vendor."""

    def option_problems(self) -> list[str]:
        """Return one sentence per problem: what, got, wanted, next step."""
        ...
