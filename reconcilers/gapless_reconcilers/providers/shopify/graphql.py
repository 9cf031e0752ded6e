"""Shopify's GraphQL: the token, requests, the data and the errors of an answer. Sources: see `provider`."""

from collections.abc import Collection, Generator
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple, TypeVar

import httpx
import msgspec
from httpx import codes

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.contract import Quota, Secret
from gapless_reconcilers.kit.decoders import decode_json, decode_or_none, decode_response
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    OptionsInvalid,
    ProviderUnavailable,
    RateLimited,
    UnexpectedShape,
)

T = TypeVar("T")

MOST_PER_PAGE: Final = 250
THROTTLED: Final = timedelta(seconds=2)
"""Wait after a throttled query that does not report the state of the bucket."""


class _Throttle(msgspec.Struct, gc=False, rename="camel"):
    currently_available: float
    restore_rate: float
    maximum_available: float = 0.0


class _Cost(msgspec.Struct, gc=False, rename="camel"):
    requested_query_cost: float = 0.0
    actual_query_cost: float | None = None
    throttle_status: _Throttle | None = None


class _Extensions(msgspec.Struct, gc=False):
    cost: _Cost | None = None
    search: list[dict[str, Any]] | None = None


class GraphAnswer(msgspec.Struct, gc=False):
    """A response with its data."""

    data: dict[str, msgspec.Raw]
    extensions: _Extensions | None = None


class _Code(msgspec.Struct, gc=False):
    code: str | None = None


class GraphError(msgspec.Struct, gc=False):
    """One error, of the response or of the user's input."""

    message: str = ""
    extensions: _Code | None = None


class GraphRefusal(msgspec.Struct, gc=False):
    """The part of a response that describes a refusal."""

    errors: list[GraphError] | None = None
    extensions: _Extensions | None = None


class PageInfo(msgspec.Struct, gc=False, rename="camel"):
    """The position of a page in its list."""

    has_next_page: bool
    end_cursor: str | None = None


class Connection(msgspec.Struct, gc=False, rename="camel"):
    """One page of a list."""

    nodes: list[msgspec.Raw]
    page_info: PageInfo


class Identified(msgspec.Struct, gc=False):
    """Any object with its gid."""

    id: str


class _Granted(msgspec.Struct, gc=False):
    access_token: str


class ShopifyApi(NamedTuple):
    """The API of one shop, and the options of its lists."""

    url: str
    page_limit: int
    resources: Collection[str]
    all_orders: bool

    def post(self, query: str, variables: dict[str, Any] | None = None, mark: str = "") -> httpx.Request:
        """Return the request with `query`. `mark` is the fragment of the address, which is never sent."""
        body = msgspec.json.encode({"query": query, "variables": variables or {}})
        return httpx.Request("POST", self.url + mark, content=body, headers={"Content-Type": "application/json"})


def read_data(response: httpx.Response, name: str, wanted: type[T]) -> T:
    """Return the field `data.<name>` of a response.

    Raises `UnexpectedShape`, also if Shopify reports that it has ignored a part of the filter.
    """
    answer = decode_response(response, GraphAnswer)
    searches = (answer.extensions and answer.extensions.search) or []
    if any(search.get("warnings") for search in searches):
        raise UnexpectedShape("extensions.search", "a warning: part of the filter was passed over", "none")
    if name not in answer.data:
        raise UnexpectedShape(f"data.{name}", "missing", "a value")
    return decode_json(answer.data[name], wanted, f"data.{name}")


def judge(response: httpx.Response, now: datetime) -> None:
    """Raise the error for a refusal: the default table, and the errors that Shopify sends with a 200.

    402 and 423 mean that the shop is frozen or locked. Sources: shopify.dev, response codes and rate limits.
    """
    if response.status_code in (codes.PAYMENT_REQUIRED, codes.LOCKED):
        raise OptionsInvalid(f"Shopify answered {response.status_code}: the shop is frozen or locked")
    statuses.judge(response, now)
    refusal = decode_or_none(response.content, GraphRefusal)
    if refusal and refusal.errors:  # `read_data` reports any other error of the response
        _refuse(refusal.errors, refusal.extensions)


def _refuse(errors: list[GraphError], extensions: _Extensions | None) -> None:
    coded = {error.extensions.code: error.message[:200] for error in reversed(errors) if error.extensions}
    if "THROTTLED" in coded:
        raise RateLimited("Shopify throttled the query", retry_after=_wait_for(extensions.cost if extensions else None))
    if "ACCESS_DENIED" in coded:
        raise CredentialsRejected(f"Shopify denies access: {coded['ACCESS_DENIED']}")
    if "SHOP_INACTIVE" in coded:
        raise OptionsInvalid("the shop is inactive")
    if "MAX_COST_EXCEEDED" in coded:
        raise OptionsInvalid("the query costs more than Shopify allows; lower page_limit")
    if "INTERNAL_SERVER_ERROR" in coded:
        raise ProviderUnavailable("Shopify answered INTERNAL_SERVER_ERROR")
    raise UnexpectedShape("errors[0]", repr(errors[0].message[:200]), "no error")


def _wait_for(cost: _Cost | None) -> timedelta:
    """Return the time until the bucket has refilled to the cost of the query."""
    bucket = cost.throttle_status if cost else None
    if cost is None or bucket is None or bucket.restore_rate <= 0:
        return THROTTLED
    lacking = max(0.0, cost.requested_query_cost - bucket.currently_available)
    wait_s = min(lacking / bucket.restore_rate, statuses.LONGEST_WAIT.total_seconds())
    return max(timedelta(seconds=wait_s), timedelta(seconds=1))


def read_quota(response: httpx.Response, now: datetime) -> Quota | None:
    """Return the points that are left, as queries of the cost of this one; None: the answer does not say so.

    Source: shopify.dev, GraphQL Admin API rate limits, read 2026-11-27: the answer to a query has them in
    `extensions.cost.throttleStatus`.
    """
    answer = decode_or_none(response.content, GraphRefusal)
    cost = answer.extensions.cost if answer and answer.extensions else None
    bucket = cost.throttle_status if cost else None
    if cost is None or bucket is None or bucket.restore_rate <= 0:
        return None
    points = max(1.0, cost.actual_query_cost or cost.requested_query_cost)
    lacking = max(0.0, bucket.maximum_available - bucket.currently_available)
    return Quota(
        remaining=max(0, int(bucket.currently_available // points)),
        limit=int(bucket.maximum_available // points) or None,
        resets_at=now + timedelta(seconds=min(lacking / bucket.restore_rate, statuses.LONGEST_WAIT.total_seconds())),
    )


class TokenAuth(httpx.Auth):
    """`X-Shopify-Access-Token`, added when the request leaves.

    With a client id instead of a token, a token is requested first, and again whenever it is refused: it is valid for
    24 hours. Raises `CredentialsRejected` and `ProviderUnavailable` if there is none.
    Source: shopify.dev, client credentials grant, read November 2026.
    """

    requires_response_body = True

    def __init__(self, token: Secret | None, url: str, client_id: str, client_secret: Secret) -> None:
        self._token, self._asks = token, bool(client_id) and token is None
        self._url, self._client_id, self._client_secret = url, client_id, client_secret

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the header to `request`."""
        token = self._token or (yield from self._ask())
        request.headers["X-Shopify-Access-Token"] = token.reveal()
        response = yield request
        if self._asks and response.status_code == codes.UNAUTHORIZED:
            newer = self._token if self._token != token else None  # another request may have renewed it meanwhile
            request.headers["X-Shopify-Access-Token"] = (newer or (yield from self._ask())).reveal()
            yield request

    def _ask(self) -> Generator[httpx.Request, httpx.Response, Secret]:
        if not self._asks:
            raise CredentialsRejected("there is neither access_token nor client_id")
        form = {"grant_type": "client_credentials", "client_id": self._client_id}
        response = yield httpx.Request("POST", self._url, data=form | {"client_secret": self._client_secret.reveal()})
        message = f"Shopify answered {response.status_code} to the request for a token"
        if response.is_server_error or response.status_code == codes.TOO_MANY_REQUESTS:
            raise ProviderUnavailable(message)
        if not response.is_success:
            raise CredentialsRejected(
                f"{message}; check client_id, the first client_secret and that the app is installed"
            )
        self._token = Secret(decode_response(response, _Granted).access_token)
        return self._token

    def __repr__(self) -> str:
        return "TokenAuth(***)"
