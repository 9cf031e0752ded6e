"""Delivers by HTTP POST.

Every attempt carries the headers of `gapless.destinations.headers`, whatever the signature. The body is the payload as
received; with `signature = "provider"` it is what the provider renders; with `format`, it may be a CloudEvent.

No redirect is followed, no cookie is kept and no proxy is read from the environment.
"""

import asyncio
import ssl
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import ClassVar, assert_never

import aiohttp
import httpx
from aiohttp.streams import EmptyStreamReader

from gapless.destinations import cloud_events
from gapless.destinations.cloud_events import EventFormat
from gapless.destinations.contract import (
    Delivered,
    Delivery,
    DestinationInvalid,
    Failed,
    FailureReason,
    Held,
    HoldReason,
    Result,
    SenderContext,
)
from gapless.destinations.headers import identity_headers
from gapless.destinations.http import addresses, answers
from gapless.destinations.http.addresses import AddressRefused, AddressRule
from gapless.destinations.http.answers import AnswerBody, KeptAnswers
from gapless.destinations.http.client import HandlerClient
from gapless.destinations.http.options import FINAL, DeliverySignature, HttpOptions
from gapless.domain import Via, span_us
from gapless.errors import UserError
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

__all__ = [
    "FINAL",
    "SENDER",
    "DeliverySignature",
    "HttpOptions",
    "HttpSender",
    "identity_headers",
    "read_status",
    "signing_key",
    "version_mismatch",
]

THROTTLED = 429
APPLIED_HEADER = "gapless-applied"
"""`true` in an answer: the consumer has applied the event, which is the receipt of a delivery that needs one."""
ANSWER_BYTES = 4096
ANSWER_S = 1.0
"""Limits for reading an answer's body: to reuse the connection, and to keep its beginning."""


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
        self._key: tuple[Secret, bytes] | None = None
        self._keep = KeptAnswers.of(options.keep_answer_headers, body=options.keep_answer_body)

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
        headers = self._headers(delivery, message)
        try:
            response = await self._client.post(headers, message.body)
        except AddressRefused as error:
            return Failed(reason=FailureReason.ADDRESS_REFUSED, detail=str(error))
        except aiohttp.ServerTimeoutError as error:
            return Failed(reason=FailureReason.TIMEOUT, detail=self._describe(error))
        except aiohttp.ClientError as error:
            return Failed(reason=FailureReason.CONNECTION, detail=self._describe(error))
        body = await _read_beginning(response)
        is_applied = response.headers.get(APPLIED_HEADER, "").strip().lower() == "true"
        return replace(
            read_status(response.status, self._wait_us(response), self._options.final, is_applied=is_applied),
            answer=answers.read(response.status, response.headers, body, self._keep, self._secrets_of(headers)),
        )

    def _secrets_of(self, headers: Mapping[str, str]) -> list[str]:
        """Return the values among the headers of an attempt that are secrets: a handler may send back what it got."""
        return [headers[name.lower()] for name in (*self._options.headers_env, *self._options.headers_file)]

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
                message = self._formed(delivery)
                return WebhookMessage(
                    headers={**message.headers, **self._signed(delivery.id, message.body)}, body=message.body
                )
            case DeliverySignature.NONE:
                return self._formed(delivery)
            case _:
                assert_never(self._options.signature)

    def _formed(self, delivery: Delivery) -> WebhookMessage:
        """Return the body with its content type, and with the attributes that stand beside it."""
        origin = self._options.cloudevents_source
        match self._options.format:
            case EventFormat.PAYLOAD:
                return WebhookMessage(headers={"content-type": cloud_events.JSON_TYPE}, body=delivery.payload)
            case EventFormat.STRUCTURED:
                kind = f"{cloud_events.STRUCTURED_TYPE}; charset=utf-8"
                return WebhookMessage(headers={"content-type": kind}, body=cloud_events.structured(delivery, origin))
            case EventFormat.BINARY:
                return WebhookMessage(headers=cloud_events.http_headers(delivery, origin), body=delivery.payload)
            case _:
                assert_never(self._options.format)

    def _signed(self, message_id: str, body: bytes) -> dict[str, str]:
        """Return the headers of the standard, with a signature of each secret. Raises `ValueError`."""
        sent_at_s = int(self._clock().timestamp())
        headers = signed_headers(self._signing_key(), message_id, sent_at_s, body)
        previous = self._options.previous_secret
        if previous is not None:
            with suppress(UserError, ValueError):  # the roll is over
                second = signed_headers(signing_key(previous.read()), message_id, sent_at_s, body)
                headers["webhook-signature"] += f" {second['webhook-signature']}"
        return headers

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

    def _signing_key(self) -> bytes:
        """Return the key of the secret as it is now; it is decoded only when that has changed."""
        secret, known = self._secret(), self._key
        if known is None or secret != known[0]:
            self._key = known = (secret, signing_key(secret))
        return known[1]

    def _wait_us(self, response: aiohttp.ClientResponse) -> int:
        """Return the wait that the answer asks for, in microseconds; 0: none."""
        if "retry-after" not in response.headers:
            return 0
        wait = parse_retry_after(httpx.Response(response.status, headers=list(response.headers.items())), self._clock())
        return span_us(wait) if wait else 0

    def _headers(self, delivery: Delivery, message: WebhookMessage) -> dict[str, str]:
        headers = {name.lower(): value for name, value in self._options.headers.items()}
        secrets = {**self._options.headers_env, **self._options.headers_file}
        headers |= {name.lower(): secret.read().reveal() for name, secret in secrets.items()}
        headers |= {name.lower(): value for name, value in message.headers.items()}
        headers |= identity_headers(delivery)
        headers["user-agent"] = "gapless"
        return headers


def read_status(
    status: int, retry_after_us: int = 0, final: Collection[int] = FINAL, *, is_applied: bool = False
) -> Delivered | Failed:
    """Return the result that a consumer's answer means. `final`: the statuses that are not tried again."""
    detail = f"HTTP {status}"
    match status // 100:
        case 2:
            return Delivered(detail=detail, applied=is_applied)
        case 3:
            return Failed(reason=FailureReason.REDIRECT, detail=f"{detail}: not followed; set url to where it leads")
        case 4:
            reason = FailureReason.THROTTLED if status == THROTTLED else FailureReason.CONSUMER_4XX
            failed = Failed(reason=reason, detail=detail, retry_after_us=retry_after_us, status=status)
            return replace(failed, permanent=status in final)
        case _:
            reason = FailureReason.CONSUMER_5XX
            return Failed(reason=reason, detail=detail, retry_after_us=retry_after_us, status=status)


def signing_key(secret: Secret) -> bytes:
    """Return the key of a standard signature: base64, `whsec_` or not. Raises `ValueError`, which never shows it."""
    key = symmetric_key(Secret(secret.reveal().strip()))
    if key is None:
        raise ValueError(
            "the secret of a standard signature is not base64; wanted whsec_ and the base64 of 24 to 64 random bytes"
        )
    return key


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


async def _read_beginning(response: aiohttp.ClientResponse) -> AnswerBody:
    """Read a short body, so that the connection can be reused; close the connection of a long or slow one."""
    parts, size, is_whole = list[bytes](), 0, False
    if isinstance(response.content, EmptyStreamReader):
        return AnswerBody(b"", is_cut=False)  # there is none, as in most answers: the connection is free by now
    try:
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(ANSWER_S):
                while size < ANSWER_BYTES and not response.content.at_eof():
                    parts.append(await response.content.readany())
                    size += len(parts[-1])
                is_whole = response.content.at_eof()
    finally:
        response.close()  # if its body was read, the connection is free by now, and stays
    return AnswerBody(b"".join(parts)[:ANSWER_BYTES], is_cut=not is_whole or size > ANSWER_BYTES)


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
            if options.previous_secret is not None:
                signing_key(options.previous_secret.read())
        except ValueError as error:
            raise DestinationInvalid(f'destination "{name}": {error}') from error


SENDER = HttpSender
