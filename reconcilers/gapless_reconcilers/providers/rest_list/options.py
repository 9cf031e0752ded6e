"""What can be declared of a vendor: the tables of `[source.options]`."""

import hashlib
from datetime import timedelta
from typing import Any

import httpx
import msgspec

from gapless_reconcilers.kit.auth import BasicAuth, BearerAuth, ClientCredentialsAuth, HeaderAuth
from gapless_reconcilers.kit.contract import Basis, Order, Secret
from gapless_reconcilers.providers.rest_list import pages
from gapless_reconcilers.providers.rest_list.events import EventFields
from gapless_reconcilers.providers.rest_list.signatures import Signature


class CredentialKind(msgspec.Struct, tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all kinds of credential are told apart by."""


class Bearer(CredentialKind, tag="bearer", frozen=True, kw_only=True):
    """`Authorization: Bearer <token>`."""

    token: Secret

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """The credentials."""
        return BearerAuth(self.token)


class Basic(CredentialKind, tag="basic", frozen=True, kw_only=True):
    """A name and a password; where the vendor has an API key alone, the key is the name."""

    username: Secret
    password: Secret = Secret("")

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """The credentials."""
        return BasicAuth(self.username, self.password)


class Header(CredentialKind, tag="header", frozen=True, kw_only=True):
    """A header that is the credential."""

    name: str
    token: Secret

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """The credentials."""
        return HeaderAuth(self.name, self.token)


class ClientCredentials(CredentialKind, tag="client_credentials", frozen=True, kw_only=True):
    """OAuth2 client credentials: a token is asked for, and anew when it is refused."""

    token_path: str
    """Where, on the same host."""
    client_id: str
    secret: Secret

    def auth(self, token_base: str) -> httpx.Auth:
        """The credentials, whose token is asked for at `token_base`."""
        return ClientCredentialsAuth(token_base + self.token_path, self.client_id, self.secret)


Credentials = Bearer | Basic | Header | ClientCredentials


def fingerprint(credentials: Credentials) -> str:
    """48 bits of the SHA-256 of all that is secret in `credentials`: tells accounts apart, and nothing else."""
    fields = (getattr(credentials, name) for name in credentials.__struct_fields__)
    texts = [field.reveal() if isinstance(field, Secret) else field for field in fields]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


class ListOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the events are listed."""

    path: str
    """Behind `base_url`."""
    records: str
    """Path of the array of events; "" if the answer is the array."""
    page: pages.Page
    order: Order
    """What the list shows first. It decides when a walk may end early."""
    nothing: dict[str, Any] | None = None
    """The whole answer that the vendor gives where there is nothing, such as `{}`; None: an empty array says it."""
    item: str = ""
    """Path of the event inside a row; "" if the row is the event."""
    params: dict[str, str | int | bool | list[str]] = {}
    """The query, in which `{window.start|unix_s}` and its like are filled in."""
    json: dict[str, Any] | None = None
    """The body, filled in likewise; where it is there the list is asked by POST."""
    headers: dict[str, str] = {}
    """Sent along, such as a version of the API."""
    resolution: timedelta = timedelta(seconds=1)
    """Unit of the filter by time."""
    history: timedelta | None = None
    """How far back it reaches; None: without limit."""
    grace: timedelta = timedelta(seconds=60)
    """How long after it occurred an event may be absent without being missing."""


class WebhookOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the vendor's webhooks are read."""

    signature: Signature
    root: str = ""
    """Path of the event in the body; "" if the body is the event."""
    many: bool = False
    """True if an array of events stands there."""
    unlisted: tuple[str, ...] = ()
    """Beginnings of keys that the list never shows, such as those of a simulator: recorded, never expected."""


class ErrorOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Statuses that mean something else than they usually do."""

    ignore: tuple[int, ...] = ()
    """There is nothing there: an empty last page."""
    retry: tuple[int, ...] = ()
    """For now: wait and ask again, as after 408, 425 and 5xx."""
    throttled: tuple[int, ...] = ()
    """Too fast, as after 429."""
    expired: tuple[int, ...] = ()
    """What was asked for is too long ago."""


class RestListOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One account of one vendor."""

    base_url: str
    auth: Credentials
    list: ListOptions
    event: EventFields = EventFields()
    webhook: WebhookOptions | None = None
    """None: no webhook is accepted (audit, `mode = "poll"`)."""
    errors: ErrorOptions = ErrorOptions()
    rate: float = 1.0
    """Requests a second that stay under the vendor's limit."""
    unproven: str = "What its declaration does not say."
    """One sentence for people: what the list cannot prove, and which facts are not verified."""
    basis: Basis = Basis.VENDOR_DOCS
    """What the declaration was checked against."""
