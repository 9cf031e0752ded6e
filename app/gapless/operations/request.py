"""The base of what an operation takes, checked when it comes in. Times are RFC 3339 with a zone."""

from datetime import datetime
from typing import Annotated, ClassVar, TypeAlias

from msgspec import Meta, Struct

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$")]
AwareTime: TypeAlias = Annotated[datetime, Meta(tz=True)]
Keys: TypeAlias = Annotated[tuple[str, ...], Meta(min_length=1, max_length=10_000)]


class OperationRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all requests. `operation` is the name that they are sent under."""

    operation: ClassVar[str]
