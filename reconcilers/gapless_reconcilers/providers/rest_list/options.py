"""The tables of `[source.options]` with which a vendor is declared."""

import hashlib
from datetime import date, timedelta
from typing import Annotated, Any, Literal

import httpx
import msgspec

from gapless_reconcilers.kit.auth import BasicAuth, BearerAuth, ClientCredentialsAuth, HeaderAuth
from gapless_reconcilers.kit.contract import Basis, Grant, Order, Pool, Secret
from gapless_reconcilers.providers.rest_list import pages
from gapless_reconcilers.providers.rest_list.events import EventFields
from gapless_reconcilers.providers.rest_list.signatures import Signature


class CredentialKind(msgspec.Struct, tag_field="type", frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all kinds of credential; `type` distinguishes them."""


class Bearer(CredentialKind, tag="bearer", frozen=True, kw_only=True):
    """`Authorization: Bearer <token>`."""

    token: Secret

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """Return the credentials."""
        return BearerAuth(self.token)


class Basic(CredentialKind, tag="basic", frozen=True, kw_only=True):
    """A name and a password; if the vendor has only an API key, the key is the name."""

    username: Secret
    password: Secret = Secret("")

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """Return the credentials."""
        return BasicAuth(self.username, self.password)


class Header(CredentialKind, tag="header", frozen=True, kw_only=True):
    """A header that is the credential."""

    name: str
    token: Secret

    def auth(self, token_base: str) -> httpx.Auth:  # noqa: ARG002
        """Return the credentials."""
        return HeaderAuth(self.name, self.token)


class ClientCredentials(CredentialKind, tag="client_credentials", frozen=True, kw_only=True):
    """OAuth2 client credentials: a token is requested, and again when it is refused."""

    token_path: str
    """The path of the token endpoint, on the same host."""
    client_id: str
    secret: Secret

    def auth(self, token_base: str) -> httpx.Auth:
        """Return the credentials; the token is requested at `token_base`."""
        return ClientCredentialsAuth(token_base + self.token_path, self.client_id, self.secret)


Credentials = Bearer | Basic | Header | ClientCredentials


def fingerprint(credentials: Credentials) -> str:
    """Return 48 bits of the SHA-256 of the secrets in `credentials`. It only distinguishes accounts."""
    fields = (getattr(credentials, name) for name in credentials.__struct_fields__)
    texts = [field.reveal() if isinstance(field, Secret) else field for field in fields]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


class ListOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The list of events."""

    path: str
    """The path of the list, after `base_url`."""
    records: str
    """Path of the array of events; "" if the answer is the array."""
    page: pages.Page
    order: Order
    """The order of the list. It decides when a walk may end early."""
    nothing: dict[str, Any] | None = None
    """The whole response if there are no events, such as `{}`; None: an empty array."""
    item: str = ""
    """Path of the event inside a row; "" if the row is the event."""
    params: dict[str, str | int | bool | list[str]] = {}
    """The query; placeholders such as `{window.start|unix_s}` are filled in."""
    other_cuts: tuple[dict[str, str | int | bool | list[str]], ...] = ()
    """Parameters that list the same events in another way: other sizes of page, or the other order.

    Each table replaces parameters of the same names, in `json` if there is one. They are used only if the list lacks an
    event whose webhook came."""
    json: dict[str, Any] | None = None
    """The body of a POST, filled in likewise; None: the list is read by GET."""
    headers: dict[str, str] = {}
    """Further headers, such as the version of the API."""
    resolution: timedelta = timedelta(seconds=1)
    """Unit of the filter by time."""
    history: timedelta | None = None
    """The age of the oldest events in it; None: no limit."""
    grace: timedelta = timedelta(seconds=60)
    """The time after its occurrence for which an event may be absent without being missing."""


class WebhookOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The vendor's webhooks."""

    signature: Signature
    root: str = ""
    """Path of the event in the body; "" if the body is the event. With `many`, `[]` stands for each of an array."""
    many: bool = False
    """True if there is an array of events at `root`."""
    unlisted: tuple[str, ...] = ()
    """Beginnings of keys that the list never shows, such as a simulator's: recorded, never expected."""

    @property
    def arrays(self) -> list[str]:
        """Return the path of each array on the way to the events, the first in the body, the next in its elements."""
        return [path.removeprefix(".") for path in self.root.removesuffix("[]").split("[]")]


class ErrorOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Statuses with another meaning than usual."""

    ignore: tuple[int, ...] = ()
    """There are no events: an empty last page."""
    retry: tuple[int, ...] = ()
    """Wait and try again, as after 408, 425 and 5xx."""
    throttled: tuple[int, ...] = ()
    """Too many requests, as after 429."""
    expired: tuple[int, ...] = ()
    """The requested time is older than the history."""


class GrantOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the vendor lets us read."""

    requests: Annotated[int, msgspec.Meta(ge=1)]
    """The least that is granted in any `period`."""
    period: timedelta
    pool: Literal["account", "address"] = "account"
    """The requests that count together: those of the account, or those of all accounts from one address of ours."""
    source: str = ""
    """Where the vendor says so, for people."""
    read_on: date | None = None
    """The day on which the source was read."""

    def grant(self) -> Grant:
        """Return it as the contract has it. Raises `ValueError` if the period is not one."""
        pool = Pool(self.pool)
        return Grant(requests=self.requests, period=self.period, pool=pool, source=self.source, read_on=self.read_on)


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
    """Requests per second, below the vendor's limit."""
    grant: GrantOptions | None = None
    """What the vendor lets us read; None: it publishes nothing."""
    least_interval: timedelta = timedelta(0)
    """The shortest interval at which the list may sensibly be read; 0: the vendor asks for none."""
    personal_data: tuple[str, ...] = ()
    """JSON pointers to personal and card data in its events: masked by default."""
    unproven: str = "What its declaration does not say."
    """One sentence for people: what the list cannot prove, and which facts are not verified."""
    basis: Basis = Basis.VENDOR_DOCS
    """The source against which the declaration was checked."""
