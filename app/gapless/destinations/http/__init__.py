"""Delivers by HTTP POST.

Every attempt carries, whatever the signature:

    idempotency-key        the event's id with us: equal on all attempts and all replays of an event
    gapless-event-id       the same
    gapless-event-key      the vendor's own id
    gapless-event-type, gapless-source, gapless-stream (if any), gapless-via, gapless-occurred-at (RFC 3339)
    gapless-mode           live or test; absent if the provider has no modes
    gapless-object         the vendor's id of the object; absent if the provider does not say
    gapless-late           recovered or replayed; absent unless it comes after others that occurred after it
    gapless-attempt        1 for the first

Characters that a header cannot hold are percent-encoded. The body is the payload as received; with
`signature = "provider"` it is what the provider renders.

No redirect is followed, no cookie is kept and no proxy is read from the environment.
"""

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from string import ascii_letters, digits, punctuation
from typing import Annotated, ClassVar, TypeAlias, assert_never
from urllib.parse import quote

import aiohttp
import httpx
from msgspec import Meta

from gapless.destinations.contract import (
    Delivered,
    Delivery,
    DestinationInvalid,
    DestinationOptions,
    Failed,
    FailureReason,
    Held,
    HoldReason,
    Result,
    SecretReader,
    SenderContext,
)
from gapless.destinations.http import addresses
from gapless.destinations.http.addresses import AddressRefused, AddressRule
from gapless.destinations.http.client import HandlerClient
from gapless.domain import EventMode, Via, span_us
from gapless_reconcilers.kit.contract import (
    CannotRender,
    NamesVersions,
    Provider,
    RecordedEvent,
    Secret,
    WebhookMessage,
)
from gapless_reconcilers.kit.errors import ProviderError
from gapless_reconcilers.kit.standard_signature import signed_headers, symmetric_key
from gapless_reconcilers.kit.statuses import parse_retry_after

PERMANENT = frozenset({400, 410, 413, 414, 415, 422})
"""Statuses that no further attempt can change."""
THROTTLED = 429
APPLIED_HEADER = "gapless-applied"
"""`true` in an answer: the consumer has applied the event, which is the receipt of a delivery that needs one."""
ANSWER_BYTES = 4096
ANSWER_S = 1.0
"""Limits for reading an answer's body, which is read only to reuse the connection."""
HEADER_SAFE = (ascii_letters + digits + punctuation).replace("%", "")
"""Characters that are not percent-encoded in a header."""
CREDENTIAL_HEADERS = frozenset(("authorization", "cookie", "proxy-authorization", "x-api-key"))
"""Headers whose values are secrets, so that the configuration may not contain them."""

Url: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"\Ahttps?://[^\s/@?#]+(/[^\s#]*)?(\?[^\s#]*)?\Z",
        description="an http:// or https:// address without a user name or a fragment",
        extra={"shown": False},
    ),
]
Host: TypeAlias = Annotated[str, Meta(pattern=r"\A[^\s/@]+(/\d+)?\Z")]
HeaderName: TypeAlias = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9-]{1,64}\Z")]
HeaderText: TypeAlias = Annotated[str, Meta(pattern=r"\A[ -~]*\Z")]


class DeliverySignature(StrEnum):
    """The signature of deliveries: Standard Webhooks, the provider's own, or none."""

    STANDARD = "standard"
    PROVIDER = "provider"
    NONE = "none"


class HttpOptions(DestinationOptions, frozen=True, kw_only=True):
    """The keys of a destination of type `http`."""

    url: Url = ""
    """The address of the handler. Required. Redirects are not followed."""
    signature: DeliverySignature = DeliverySignature.STANDARD
    """The signature of deliveries. Standard Webhooks has libraries in every language."""
    secret: SecretReader | None = None
    """The secret that signs deliveries. Required unless `signature` is `none`."""
    allow_private: bool = False
    """Deliver to any private, loopback or metadata address. If off, `allow` must name them."""
    allow: Annotated[tuple[Host, ...], Meta(description="a list of hosts, addresses or networks")] = ()
    """Private hosts, addresses or networks that may be delivered to, such as 127.0.0.1 or 10.0.0.0/8.

    Also public ones to which events may be sent by plain http, which is refused unless named."""
    headers: Annotated[
        Mapping[HeaderName, HeaderText],
        Meta(description="a table of header names and texts", extra={"shown": False}),
    ] = {}
    """Headers added to each delivery, sent in lower case. Not for credentials: see `headers_env`."""
    headers_env: Annotated[
        Mapping[HeaderName, SecretReader], Meta(description="a table of header names and names of variables")
    ] = {}
    """Headers whose values are secrets, each with the name of the variable that holds it."""

    @property
    def address(self) -> str:
        """The URL."""
        return self.url

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each problem of the options."""
        if not self.url:
            yield 'option url is missing; wanted the address of a handler, or type = "python" with a target'
        if self.signature is not DeliverySignature.NONE and self.secret is None:
            yield (
                f'option secret_env is missing; signature "{self.signature}" needs secret_env or secret_file; '
                'or set signature = "none"'
            )
        for name in sorted({name.lower() for name in self.headers} & CREDENTIAL_HEADERS):
            yield (
                f"option headers.{name} is a secret and may not stand here; "
                f'use headers_env = {{ {name} = "NAME_OF_A_VARIABLE" }}'
            )


class HttpSender:
    """Sends events to one URL.

    Raises `DestinationInvalid` if the options cannot work. `tls`: replaces the context of the public authorities.
    """

    kind: ClassVar[str] = "http"
    Options: ClassVar[type[HttpOptions]] = HttpOptions

    def __init__(self, options: HttpOptions, context: SenderContext, tls: ssl.SSLContext | None = None) -> None:
        self._options = options
        self._sources = context.sources
        self._clock = context.clock
        self._holds_mismatch = HoldReason.VERSION_MISMATCH not in context.releases
        self._url = _checked_url(context.name, options.url)
        _check_secret(context.name, options)
        self._rule = AddressRule(options.allow, allow_private=options.allow_private)
        self._client = HandlerClient(self._url, self._rule, context.concurrency, tls)

    @property
    def renders(self) -> bool:
        """True if the provider renders the deliveries."""
        return self._options.signature is DeliverySignature.PROVIDER

    async def address_problems(self) -> list[str]:
        """Return the problem if the host has no address, or one to which delivery is not allowed."""
        return await addresses.address_problems(self._url.scheme, self._url.host, self._rule)

    def rendering_problem(self, delivery: Delivery) -> str | None:
        """Return why `delivery` could not be signed or rendered, or None."""
        try:
            message = self._message(delivery)
        except ValueError as error:
            return str(error)
        return message.detail if isinstance(message, Failed) else None

    async def send(self, delivery: Delivery) -> Result:
        """POST once, and return the result that the answer means."""
        message = self._message(delivery)
        if not isinstance(message, WebhookMessage):
            return message
        try:
            response = await self._client.post(self._headers(delivery, message), message.body)
        except AddressRefused as error:
            return Failed(reason=FailureReason.ADDRESS_REFUSED, detail=str(error))
        except aiohttp.ServerTimeoutError as error:
            return Failed(reason=FailureReason.TIMEOUT, detail=self._describe(error))
        except aiohttp.ClientError as error:
            return Failed(reason=FailureReason.CONNECTION, detail=self._describe(error))
        await _finish_reading(response)
        is_applied = response.headers.get(APPLIED_HEADER, "").strip().lower() == "true"
        return read_status(response.status, self._wait_us(response), is_applied=is_applied)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _describe(self, error: Exception) -> str:
        """Return the error in words, without the URL: that may be a secret."""
        text = str(error).replace(str(self._url), self._url.host)
        return f"{type(error).__name__}: {text}" if text else type(error).__name__

    def _message(self, delivery: Delivery) -> WebhookMessage | Held | Failed:
        match self._options.signature:
            case DeliverySignature.PROVIDER:
                return self._rendered(delivery)
            case DeliverySignature.STANDARD:
                key, sent_at_s = signing_key(self._secret()), int(self._clock().timestamp())
                return _as_received(delivery, signed_headers(key, delivery.id, sent_at_s, delivery.payload))
            case DeliverySignature.NONE:
                return _as_received(delivery, {})
            case _:
                assert_never(self._options.signature)

    def _rendered(self, delivery: Delivery) -> WebhookMessage | Held | Failed:
        if delivery.source not in self._sources:
            return Failed(reason=FailureReason.CANNOT_RENDER, detail=f'source "{delivery.source}" is not configured')
        provider = self._sources[delivery.source].provider
        if self._holds_mismatch and not delivery.released and delivery.via is Via.LIST:
            try:
                differing = version_mismatch(provider, delivery.payload, delivery.endpoint_version)
            except ProviderError as error:
                return Held(reason=HoldReason.UNREADABLE, detail=f"its API version cannot be read: {error}")
            if differing:
                return Held(reason=HoldReason.VERSION_MISMATCH, detail=differing)
        message = provider.render(_recorded(delivery), self._options.url, self._secret(), self._clock())
        if isinstance(message, CannotRender):
            return Failed(reason=FailureReason.CANNOT_RENDER, detail=message.reason, permanent=True)
        return message

    def _secret(self) -> Secret:
        if self._options.secret is None:
            raise DestinationInvalid(f"signature is {self._options.signature.value} and there is no secret")
        return self._options.secret.read()

    def _wait_us(self, response: aiohttp.ClientResponse) -> int:
        """Return the wait that the answer asks for, in microseconds; 0: none."""
        if "retry-after" not in response.headers:
            return 0
        wait = parse_retry_after(httpx.Response(response.status, headers=list(response.headers.items())), self._clock())
        return span_us(wait) if wait else 0

    def _headers(self, delivery: Delivery, message: WebhookMessage) -> dict[str, str]:
        headers = {name.lower(): value for name, value in self._options.headers.items()}
        headers |= {name.lower(): secret.read().reveal() for name, secret in self._options.headers_env.items()}
        headers |= {name.lower(): value for name, value in message.headers.items()}
        headers |= identity_headers(delivery)
        headers["user-agent"] = "gapless"
        return headers


def read_status(status: int, retry_after_us: int = 0, *, is_applied: bool = False) -> Result:
    """Return the result that a consumer's answer means."""
    detail = f"HTTP {status}"
    match status // 100:
        case 2:
            return Delivered(detail=detail, applied=is_applied)
        case 3:
            return Failed(reason=FailureReason.REDIRECT, detail=f"{detail}: not followed; set url to where it leads")
        case 4:
            reason = FailureReason.THROTTLED if status == THROTTLED else FailureReason.CONSUMER_4XX
            return Failed(reason=reason, detail=detail, permanent=status in PERMANENT, retry_after_us=retry_after_us)
        case _:
            return Failed(reason=FailureReason.CONSUMER_5XX, detail=detail, retry_after_us=retry_after_us)


def signing_key(secret: Secret) -> bytes:
    """Return the key of a standard signature: base64, `whsec_` or not. Raises `ValueError`, which never shows it."""
    key = symmetric_key(Secret(secret.reveal().strip()))
    if key is None:
        raise ValueError(
            "the secret of a standard signature is not base64; wanted whsec_ and the base64 of 24 to 64 random bytes"
        )
    return key


def identity_headers(delivery: Delivery) -> dict[str, str]:
    """Return the headers that identify the event and the attempt."""
    headers = {
        "idempotency-key": delivery.id,
        "gapless-event-id": delivery.id,
        "gapless-event-key": delivery.key,
        "gapless-event-type": delivery.type,
        "gapless-source": delivery.source,
        "gapless-via": delivery.via.value,
        "gapless-occurred-at": delivery.occurred_at.isoformat(),
        "gapless-attempt": str(delivery.attempt),
    }
    if delivery.stream:
        headers["gapless-stream"] = delivery.stream
    if delivery.object_key is not None:
        headers["gapless-object"] = delivery.object_key
    if delivery.late is not None:
        headers["gapless-late"] = delivery.late
    if delivery.livemode is not None:
        headers["gapless-mode"] = EventMode.of(livemode=delivery.livemode).value
    return {name: quote(value, safe=HEADER_SAFE) for name, value in headers.items()}


def version_mismatch(provider: Provider, payload: bytes, as_read: str | None) -> str | None:
    """Return a sentence with both API versions, if both are known and they differ.

    The endpoint's is that of the options, else `as_read`: the one that the vendor last showed. Raises `ProviderError`
    if that of the payload cannot be read.
    """
    if not isinstance(provider, NamesVersions):
        return None
    of_payload, of_endpoint = provider.payload_version(payload), provider.endpoint_version() or as_read
    if of_payload is None or of_endpoint is None or of_payload == of_endpoint:
        return None
    return f"payload is of API version {of_payload}, the endpoint of {of_endpoint}"


def _as_received(delivery: Delivery, headers: Mapping[str, str]) -> WebhookMessage:
    return WebhookMessage(headers={"content-type": "application/json", **headers}, body=delivery.payload)


def _recorded(delivery: Delivery) -> RecordedEvent:
    return RecordedEvent(
        key=delivery.key,
        type=delivery.type,
        occurred_at=delivery.occurred_at,
        stream=delivery.stream,
        payload=delivery.payload,
        via=delivery.via.value,
        headers=delivery.headers,
    )


async def _finish_reading(response: aiohttp.ClientResponse) -> None:
    """Read a short body, so that the connection can be reused; close the connection of a long or slow one."""
    left = ANSWER_BYTES
    try:
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(ANSWER_S):
                while left > 0 and not response.content.at_eof():
                    left -= len(await response.content.readany())
    finally:
        response.close()  # if its body was read, the connection is free by now, and stays


def _checked_url(name: str, text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise DestinationInvalid(f'destination "{name}": url cannot be read: {error}') from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise DestinationInvalid(f'destination "{name}": url is no http:// or https:// address without a user name')
    return url


def _check_secret(name: str, options: HttpOptions) -> None:
    if options.signature is DeliverySignature.NONE:
        return
    if options.secret is None:
        raise DestinationInvalid(
            f'destination "{name}": signature is "{options.signature.value}" and there is no secret; '
            'set secret_env or secret_file, or signature = "none"'
        )
    if options.signature is DeliverySignature.STANDARD:
        try:
            signing_key(options.secret.read())
        except ValueError as error:
            raise DestinationInvalid(f'destination "{name}": {error}') from error


SENDER = HttpSender
