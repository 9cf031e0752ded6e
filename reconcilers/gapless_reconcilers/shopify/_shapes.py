"""What Shopify's answers and bodies are made of, as far as they are read."""

from datetime import datetime
from typing import Annotated, Any

import msgspec


class Body(msgspec.Struct, gc=False):
    """The few fields of a webhook that are read. Each may be absent: topics differ."""

    id: Any = None
    admin_graphql_api_id: Any = None
    updated_at: Any = None
    created_at: Any = None


class Node(msgspec.Struct, gc=False, rename="camel"):
    id: str
    updated_at: Annotated[datetime, msgspec.Meta(tz=True)]


class PageInfo(msgspec.Struct, gc=False, rename="camel"):
    has_next_page: bool
    end_cursor: str | None = None


class Connection(msgspec.Struct, gc=False, rename="camel"):
    nodes: list[msgspec.Raw]
    page_info: PageInfo


class Throttle(msgspec.Struct, gc=False, rename="camel"):
    currently_available: float
    restore_rate: float


class Cost(msgspec.Struct, gc=False, rename="camel"):
    requested_query_cost: float = 0.0
    throttle_status: Throttle | None = None


class Search(msgspec.Struct, gc=False):
    warnings: list[Any] | None = None


class Extensions(msgspec.Struct, gc=False):
    cost: Cost | None = None
    search: list[Search] | None = None


class Answer(msgspec.Struct, gc=False):
    data: dict[str, msgspec.Raw]
    extensions: Extensions | None = None


class Code(msgspec.Struct, gc=False):
    code: str | None = None


class Error(msgspec.Struct, gc=False):
    message: str = ""
    extensions: Code | None = None


class Refusal(msgspec.Struct, gc=False):
    errors: list[Error] | None = None
    extensions: Extensions | None = None


class Variables(msgspec.Struct, gc=False):
    after: str | None = None


class Asked(msgspec.Struct, gc=False):
    variables: Variables


class Shop(msgspec.Struct, gc=False):
    id: str


class Handle(msgspec.Struct, gc=False):
    handle: str


class Installation(msgspec.Struct, gc=False, rename="camel"):
    access_scopes: list[Handle]


class Row(msgspec.Struct, gc=False, rename="camel"):
    id: str
    topic: str
    uri: str
    format: str
    filter: str | None = None
    include_fields: tuple[str, ...] = ()
    api_version: Handle | None = None


class Granted(msgspec.Struct, gc=False):
    """A token."""

    access_token: str


class Created(msgspec.Struct, gc=False, rename="camel"):
    user_errors: list[Error]
    webhook_subscription: Shop | None = None
