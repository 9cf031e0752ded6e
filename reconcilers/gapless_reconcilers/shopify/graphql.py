"""What Shopify's GraphQL says and how it is asked. The package's own page has the sources of it all."""

import re
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Annotated, Final, NamedTuple, TypeVar
from urllib.parse import parse_qs, urlsplit

import httpx
import msgspec
from httpx import codes

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.contract import RemoteEvent, Secret, WebhookRequest, Window
from gapless_reconcilers.kit.decoding import decode_json, decode_response
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    OptionsInvalid,
    ProviderUnavailable,
    RateLimited,
    SignatureInvalid,
    UnexpectedShape,
)
from gapless_reconcilers.shopify._shapes import (
    Answer,
    Created,
    Extensions,
    Granted,
    Node,
    Refusal,
    Row,
)

T = TypeVar("T")

TOKEN_HEADER: Final = "X-Shopify-Access-Token"  # noqa: S105 - a name
THROTTLED: Final = timedelta(seconds=2)
"""Wait after a throttled query that does not say how full the bucket is."""
TOPIC_FORM: Final = re.compile(r"[a-z0-9_]+[/.][a-z0-9_]+")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Resource(NamedTuple):
    """A list that can be read by time of update."""

    gid: str
    update: str
    """The action of its topic that tells of a change."""
    others: tuple[str, ...]
    fields: str
    """What is asked of each object: fields without a cost, so that a full page stays under 1,000 points."""

    def topics(self, name: str) -> list[str]:
        """The topics that are subscribed to when nothing else is said."""
        return [f"{name}/{action}" for action in (self.update, *self.others)]


RESOURCES: Final = {
    "orders": Resource(
        gid="gid://shopify/Order/",
        update="updated",
        others=("create", "delete", "cancelled", "fulfilled", "paid", "partially_fulfilled"),
        fields="id name createdAt updatedAt processedAt cancelledAt closedAt test currencyCode "
        "displayFinancialStatus displayFulfillmentStatus",
    ),
    "products": Resource(
        gid="gid://shopify/Product/",
        update="update",
        others=("create", "delete"),
        fields="id handle title status vendor productType createdAt updatedAt publishedAt",
    ),
    "customers": Resource(
        gid="gid://shopify/Customer/",
        update="update",
        others=("create", "delete", "disable", "enable"),
        fields="id createdAt updatedAt state",
    ),
}
STATE_TYPES: Final = frozenset(f"{name}.state" for name in RESOURCES)

LIST: Final = (
    "query($first: Int!, $after: String, $query: String!) { %s(first: $first, after: $after, query: $query, "
    "sortKey: UPDATED_AT) { nodes { %s } pageInfo { hasNextPage endCursor } } }"
)
SHOP: Final = "{ shop { id } }"
SCOPES: Final = "{ currentAppInstallation { accessScopes { handle } } }"
SUBSCRIPTIONS: Final = (
    "{ webhookSubscriptions(first: 250) { nodes { id topic uri format filter includeFields apiVersion { handle } } "
    "pageInfo { hasNextPage } } }"
)
CREATE: Final = (
    "t%d: webhookSubscriptionCreate(topic: %s, webhookSubscription: $at) "
    "{ webhookSubscription { id } userErrors { message } }"
)


def read_data(response: httpx.Response, name: str, wanted: type[T]) -> T:
    """The field `data.<name>` of an answer. Raises `UnexpectedShape`."""
    answer = decode_response(response, Answer)
    searches = (answer.extensions and answer.extensions.search) or []
    if any(search.warnings for search in searches):
        raise UnexpectedShape("extensions.search", "a warning: part of the filter was passed over", "none")
    if name not in answer.data:
        raise UnexpectedShape(f"data.{name}", "missing", "a value")
    return decode_json(answer.data[name], wanted, f"data.{name}")


def state_of(stream: str, node: Node, row: msgspec.Raw, path: str) -> RemoteEvent:
    """The event that stands for the state of a listed object. Raises `UnexpectedShape`."""
    try:
        at = node.updated_at.astimezone(UTC)
        return RemoteEvent(
            key=f"{node.id}@{to_text(at)}",
            type=f"{stream}.state",
            occurred_at=at,
            payload=row,
            stream=stream,
            object_key=node.id,
            object_version=version_of(at),
        )
    except (ValueError, OverflowError) as error:
        raise UnexpectedShape(path, f"not recordable: {error}", "a state that is") from error


def place_of(request: httpx.Request, window: Window) -> tuple[datetime, int]:
    """From when on the query of `request` lists, and how much of it was read before."""
    found = parse_qs(request.url.fragment)
    since = datetime.fromisoformat(found["since"][0]) if "since" in found else window.start.replace(microsecond=0)
    return since, int(found["read"][0]) if "read" in found else 0


def to_time(value: object) -> datetime | None:
    """A time in a body or header as aware UTC; None if it is none."""
    try:
        time: datetime = msgspec.convert(value, Annotated[datetime, msgspec.Meta(tz=True)])
        return time.astimezone(UTC)
    except (msgspec.ValidationError, OverflowError):
        return None


def version_of(time: datetime) -> int:
    """A time of update as a number that grows: microseconds since 1970."""
    return (time - _EPOCH) // _MICROSECOND


def to_text(time: datetime) -> str:
    """A time as Shopify writes it."""
    return time.isoformat().replace("+00:00", "Z")


def refuse(refusal: Refusal) -> None:
    """Raise what the errors of a 200 mean."""
    errors = refusal.errors or []
    coded = {error.extensions.code: error.message[:200] for error in reversed(errors) if error.extensions}
    if "THROTTLED" in coded:
        raise RateLimited("Shopify throttled the query", retry_after=wait_for(refusal.extensions))
    if "ACCESS_DENIED" in coded:
        raise CredentialsRejected(f"Shopify denies access: {coded['ACCESS_DENIED']}")
    if "SHOP_INACTIVE" in coded:
        raise OptionsInvalid("the shop is inactive")
    if "MAX_COST_EXCEEDED" in coded:
        raise OptionsInvalid("the query costs more than Shopify allows; lower page_limit")
    if "INTERNAL_SERVER_ERROR" in coded:
        raise ProviderUnavailable("Shopify answered INTERNAL_SERVER_ERROR")
    raise UnexpectedShape("errors[0]", repr(errors[0].message[:200]), "no error")


def wait_for(extensions: Extensions | None) -> timedelta:
    """How long the bucket takes to hold what the query costs."""
    cost = extensions.cost if extensions else None
    bucket = cost.throttle_status if cost else None
    if cost is None or bucket is None or bucket.restore_rate <= 0:
        return THROTTLED
    lacking = max(0.0, cost.requested_query_cost - bucket.currently_available)
    wait_s = min(lacking / bucket.restore_rate, statuses.LONGEST_WAIT.total_seconds())
    return max(timedelta(seconds=wait_s), timedelta(seconds=1))


def rows_at(url: str, rows: list[Row]) -> list[Row]:
    """Those with this address; if there are none, those with its path (we may not know our public name)."""
    path = urlsplit(url).path
    return [row for row in rows if row.uri == url] or [row for row in rows if urlsplit(row.uri).path == path]


def is_whole(row: Row) -> bool:
    """Whether the subscription sends every object of its topic, and of it what is compared with the list."""
    fields = {"id", "updated_at"}
    return row.format == "JSON" and not row.filter and (not row.include_fields or fields <= set(row.include_fields))


def to_topic(enum: str) -> str:
    """`ORDERS_PARTIALLY_FULFILLED` as `orders/partially_fulfilled`; elsewhere the last word is the act."""
    words = enum.lower()
    for name in RESOURCES:
        if words.startswith(f"{name}_") and not words.startswith(("customers_marketing_", "customers_email_")):
            return f"{name}/{words[len(name) + 1 :]}"
    group, _, action = words.rpartition("_")
    return f"{group}/{action}"


def to_enum(topic: str) -> str:
    """A topic as GraphQL names it. Raises `OptionsInvalid`."""
    if not TOPIC_FORM.fullmatch(topic):
        raise OptionsInvalid(f"{topic!r} is no topic; wanted one such as orders/updated")
    return topic.upper().replace("/", "_").replace(".", "_")


def topics_of(pattern: str, usual: list[str]) -> list[str]:
    """The topics that `pattern` stands for; a state is no topic."""
    if pattern.endswith("*"):
        return [topic for topic in usual if topic.startswith(pattern[:-1])]
    return [] if pattern in STATE_TYPES else [pattern]


class TokenAuth(httpx.Auth):
    """`X-Shopify-Access-Token`, added when the request leaves.

    With a grant instead of a token, one is asked for first, and anew whenever it is refused: it lives for
    24 hours. Raises `CredentialsRejected` and `ProviderUnavailable` if none is given.
    Source: shopify.dev, client credentials grant, read November 2026.
    """

    requires_response_body = True

    def __init__(self, token: Secret | None, grant: "Grant") -> None:
        self._token = token
        self._grant = grant if grant.client_id and token is None else None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header to `request`."""
        token = self._token or (yield from self._ask())
        request.headers[TOKEN_HEADER] = token.reveal()
        response = yield request
        if self._grant and response.status_code == codes.UNAUTHORIZED:
            newer = self._token if self._token != token else None  # another request may have asked meanwhile
            request.headers[TOKEN_HEADER] = (newer or (yield from self._ask())).reveal()
            yield request

    def _ask(self) -> Generator[httpx.Request, httpx.Response, Secret]:
        if self._grant is None:
            raise CredentialsRejected("there is neither access_token nor client_id")
        response = yield self._grant.request()
        if response.is_server_error or response.status_code == codes.TOO_MANY_REQUESTS:
            raise ProviderUnavailable(f"Shopify answered {response.status_code} when asked for a token")
        if not response.is_success:
            told = f"Shopify answered {response.status_code} when asked for a token"
            raise CredentialsRejected(f"{told}; check client_id, the first client_secret and that the app is installed")
        self._token = Secret(decode_response(response, Granted).access_token)
        return self._token

    def __repr__(self) -> str:
        return "TokenAuth(***)"


class Grant(NamedTuple):
    """What a token is given for."""

    url: str
    client_id: str
    client_secret: Secret

    def request(self) -> httpx.Request:
        """Ask for a token."""
        told = {"client_id": self.client_id, "client_secret": self.client_secret.reveal()}
        return httpx.Request("POST", self.url, data={"grant_type": "client_credentials", **told})


def named(request: WebhookRequest, name: str, form: re.Pattern[str]) -> str:
    """The header `name`. Raises `SignatureInvalid`, as the SDK does without it."""
    value = request.header(name)
    if value is None or not form.fullmatch(value):
        raise SignatureInvalid(f"the header {name} is missing or of another form", reason="bad_header")
    return value


def made_of(response: httpx.Response) -> list[str]:
    """The ids of the subscriptions that were made. Raises `OptionsInvalid` if one was refused."""
    made = list[str]()
    for name, raw in decode_response(response, Answer).data.items():
        created = decode_json(raw, Created, f"data.{name}")
        refusals = [error.message for error in created.user_errors if "already been taken" not in error.message]
        if refusals:
            raise OptionsInvalid(f"Shopify refused a subscription: {refusals[0][:200]}")
        if created.webhook_subscription is not None:
            made.append(created.webhook_subscription.id)
    return made
