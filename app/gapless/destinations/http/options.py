"""The options of a destination of type `http`."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, TypeAlias

from msgspec import Meta

from gapless.destinations.cloud_events import EventFormat, Origin
from gapless.destinations.contract import DestinationOptions, SecretReader

FINAL = (410,)
"""Statuses that no further attempt changes, unless the configuration says otherwise.

Not 400: handlers answer that while their own secret is wrong.
"""
CREDENTIAL_HEADERS = frozenset(("authorization", "cookie", "proxy-authorization", "x-api-key"))
"""Headers whose values are secrets, so that the configuration may not contain them."""
SECRET_ANSWERS = CREDENTIAL_HEADERS | {"set-cookie", "authentication-info", "proxy-authentication-info"}
"""Headers of answers that are never kept."""

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
Refusal: TypeAlias = Annotated[int, Meta(ge=400, le=499)]


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
    previous_secret: SecretReader | None = None
    """The secret before, while it is rolled: deliveries have a signature of each. Only if `signature` is `standard`.

    Once it cannot be read any more, such as a file that was removed, the new one signs alone."""
    final: Annotated[tuple[Refusal, ...], Meta(description="a list of statuses from 400 to 499")] = FINAL
    """Statuses after which there is no further attempt. Every other 4xx is tried again."""
    format: EventFormat = EventFormat.PAYLOAD
    """The form of the body: as received, or a CloudEvent in structured or binary mode."""
    cloudevents_source: Origin = "/gapless"
    """What `source` of each CloudEvent begins with; the name of our source follows. Tells installations apart."""
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
    headers_file: Annotated[
        Mapping[HeaderName, SecretReader], Meta(description="a table of header names and paths of files")
    ] = {}
    """Headers whose values are secrets, each with the file that holds it; it is read for each attempt."""
    keep_answer_headers: Annotated[
        tuple[HeaderName, ...], Meta(max_length=20, description="a list of at most 20 names of headers")
    ] = ()
    """Headers of answers that are kept with an attempt, beside content-type, retry-after, server and the request id."""
    keep_answer_body: bool = True
    """Keep the beginning of each answer's body with the attempt, if it is text: 1,024 characters, masked as events."""

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
        if self.previous_secret is not None and self.signature is DeliverySignature.PROVIDER:
            yield (
                'option previous_secret_env is for signature = "standard", where a delivery can have two signatures; '
                "leave it out"
            )
        if self.format is not EventFormat.PAYLOAD and self.signature is DeliverySignature.PROVIDER:
            yield 'option format is for other signatures than "provider", whose body the provider renders; leave it out'
        for name in sorted({name.lower() for name in self.keep_answer_headers} & SECRET_ANSWERS):
            yield f"option keep_answer_headers names {name}, which is a secret; leave it out"
        for name in sorted({name.lower() for name in self.headers} & CREDENTIAL_HEADERS):
            yield (
                f"option headers.{name} is a secret and may not stand here; "
                f'use headers_env = {{ {name} = "NAME_OF_A_VARIABLE" }}'
            )
