"""Delivers by HTTP POST.

Every attempt carries, whatever the signature:

    idempotency-key        the event's id with us: equal on all attempts and all replays of an event
    gapless-event-id       the same
    gapless-event-key      the vendor's own id
    gapless-event-type, gapless-source, gapless-stream (if any), gapless-via, gapless-occurred-at (RFC 3339)
    gapless-attempt        1 for the first

Characters that a header cannot hold are percent-encoded. The body is the payload as received; with
`signature = "provider"` it is what the provider renders.

Requests go to a transport, not to a client: there is nothing here that could follow a redirect, keep a
cookie or read a proxy from the environment.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from string import ascii_letters, digits, punctuation
from typing import assert_never
from urllib.parse import quote

import httpx

from gapless.deliver.delivery import Delivery, Failed, Held, Result
from gapless.deliver.destinations.addresses import AddressRefused, AddressRule, CheckedTransport
from gapless.deliver.destinations.base import DestinationInvalid
from gapless.deliver.retry import read_status
from gapless.domain import Clock, Sources, Via, span_us
from gapless.ledger.deliveries import HoldReason, Reason
from gapless_reconcilers.kit.contract import (
    CannotRender,
    NamesVersions,
    Provider,
    RecordedEvent,
    Secret,
    WebhookMessage,
)
from gapless_reconcilers.kit.standard import SYMMETRIC, signed_headers, symmetric_key
from gapless_reconcilers.kit.statuses import parse_retry_after

CONNECT_TIMEOUT_S = 5.0
"""For each address of the host; the whole attempt has the destination's timeout."""
ANSWER_BYTES = 4096
ANSWER_S = 1.0
"""How much of an answer's body is read, and for how long, only to use the connection again."""
HEADER_SAFE = (ascii_letters + digits + punctuation).replace("%", "")


class Signature(StrEnum):
    """How deliveries are signed."""

    STANDARD = "standard"
    PROVIDER = "provider"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """What an http destination is configured with."""

    url: str = field(repr=False)
    signature: Signature
    secret: Callable[[], Secret] | None = None
    """Asked on every attempt, so that a secret that was changed is used at once."""
    allow: tuple[str, ...] = ()
    """Private hosts, addresses or networks that may be delivered to."""
    allow_private: bool = False
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    hold_version_mismatch: bool
    """With `signature = "provider"`: hold what was listed in another API version than the endpoint's."""
    connections: int


class HttpCarrier:
    """Brings events to one URL. `sources` gives the provider that renders, `clock` the time that is signed.

    Raises `DestinationInvalid` if the options cannot work. `tls`: another context than that of the public authorities.
    """

    def __init__(
        self, name: str, options: HttpOptions, sources: Sources, clock: Clock, tls: ssl.SSLContext | None = None
    ) -> None:
        self._options = options
        self._sources = sources
        self._clock = clock
        self._url = _checked_url(name, options.url)
        _check_secret(name, options)
        limits = httpx.Limits(max_connections=options.connections, max_keepalive_connections=options.connections)
        inner = httpx.AsyncHTTPTransport(verify=tls or True, trust_env=False, limits=limits)
        self._transport = CheckedTransport(AddressRule(options.allow, allow_private=options.allow_private), inner)

    async def send(self, delivery: Delivery) -> Result:
        """POST once, and read what the answer means."""
        message = self._message(delivery)
        if not isinstance(message, WebhookMessage):
            return message
        try:
            response = await self._transport.handle_async_request(self._request(delivery, message))
        except AddressRefused as error:
            return Failed(reason=Reason.ADDRESS_REFUSED, detail=str(error))
        except httpx.TimeoutException as error:
            return Failed(reason=Reason.TIMEOUT, detail=_told(error))
        except (httpx.NetworkError, httpx.RemoteProtocolError) as error:
            return Failed(reason=Reason.CONNECTION, detail=_told(error))
        await _let_go(response)
        wait = parse_retry_after(response, self._clock())
        return read_status(response.status_code, span_us(wait) if wait else 0)

    async def close(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def _message(self, delivery: Delivery) -> WebhookMessage | Held | Failed:
        match self._options.signature:
            case Signature.PROVIDER:
                return self._rendered(delivery)
            case Signature.STANDARD:
                key, sent_at_s = signing_key(self._secret()), int(self._clock().timestamp())
                return _as_received(delivery, signed_headers(key, delivery.id, sent_at_s, delivery.payload))
            case Signature.NONE:
                return _as_received(delivery, {})
            case _:
                assert_never(self._options.signature)

    def _rendered(self, delivery: Delivery) -> WebhookMessage | Held | Failed:
        if delivery.source not in self._sources:
            return Failed(reason=Reason.CANNOT_RENDER, detail=f'source "{delivery.source}" is not configured')
        provider = self._sources[delivery.source].provider
        if self._options.hold_version_mismatch and not delivery.released and delivery.via is Via.LIST:
            differing = version_mismatch(provider, delivery.payload)
            if differing:
                return Held(reason=HoldReason.VERSION_MISMATCH, detail=differing)
        message = provider.render(_recorded(delivery), self._options.url, self._secret(), self._clock())
        if isinstance(message, CannotRender):
            return Failed(reason=Reason.CANNOT_RENDER, detail=message.reason, permanent=True)
        return message

    def _secret(self) -> Secret:
        if self._options.secret is None:
            raise DestinationInvalid(f"signature is {self._options.signature.value} and there is no secret")
        return self._options.secret()

    def _request(self, delivery: Delivery, message: WebhookMessage) -> httpx.Request:
        headers = {name.lower(): value for name, value in self._options.headers.items()}
        headers |= {name.lower(): value for name, value in message.headers.items()}
        headers |= identity_headers(delivery)
        headers["user-agent"] = "gapless"
        extensions = {"timeout": {"connect": CONNECT_TIMEOUT_S}}
        return httpx.Request("POST", self._url, headers=headers, content=message.body, extensions=extensions)


def identity_headers(delivery: Delivery) -> dict[str, str]:
    """What every attempt is recognised by."""
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
    return {name: quote(value, safe=HEADER_SAFE) for name, value in headers.items()}


def signing_key(secret: Secret) -> bytes:
    """The key of a standard signature: base64, the prefix and the padding may be left out. Raises `ValueError`."""
    text = secret.reveal().removeprefix(SYMMETRIC)
    key = symmetric_key(Secret(text + "=" * (-len(text) % 4)))
    if key is None:
        raise ValueError(
            "the secret of a standard signature is not base64; wanted whsec_ and the base64 of 24 to 64 random bytes"
        )
    return key


def version_mismatch(provider: Provider, payload: bytes) -> str | None:
    """Both API versions, if both are known and they differ."""
    if not isinstance(provider, NamesVersions):
        return None
    of_payload, of_endpoint = provider.payload_version(payload), provider.endpoint_version()
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
    )


async def _let_go(response: httpx.Response) -> None:
    """Read a short body, so that its connection can be used again; close the connection of a long or slow one."""
    try:
        with suppress(TimeoutError, httpx.HTTPError):
            async with asyncio.timeout(ANSWER_S):
                async for _ in response.aiter_raw():
                    if response.num_bytes_downloaded > ANSWER_BYTES:
                        break
    finally:
        await response.aclose()


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _checked_url(name: str, text: str) -> httpx.URL:
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise DestinationInvalid(f'destination "{name}": url cannot be read: {error}') from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise DestinationInvalid(f'destination "{name}": url is no http:// or https:// address without a user name')
    return url


def _check_secret(name: str, options: HttpOptions) -> None:
    if options.signature is Signature.NONE:
        return
    if options.secret is None:
        raise DestinationInvalid(
            f'destination "{name}": signature is "{options.signature.value}" and there is no secret; '
            'set secret_env or secret_file, or signature = "none"'
        )
    if options.signature is Signature.STANDARD:
        try:
            signing_key(options.secret())
        except ValueError as error:
            raise DestinationInvalid(f'destination "{name}": {error}') from error
