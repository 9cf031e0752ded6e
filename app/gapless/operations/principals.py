"""Who asks: the name for the audit log, the role, and the sources and destinations that it is limited to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class AccessRole(StrEnum):
    """What a token opens."""

    VIEWER = "viewer"
    """Status, pages and metrics."""
    OPERATOR = "operator"
    """What a viewer sees, and every operation but those on tokens."""
    METRICS = "metrics"
    """Metrics and nothing else."""
    CONSUMER = "consumer"
    """Receipts of the destinations that it is bound to."""
    OWNER = "owner"
    """Everything: a person who can read the ledger on this machine. No token has this role."""


GRANTED: Final = (AccessRole.VIEWER, AccessRole.OPERATOR, AccessRole.METRICS, AccessRole.CONSUMER)
"""The roles that tokens can have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who asks. `sources` and `destinations` None: all of them."""

    name: str
    role: AccessRole
    sources: frozenset[str] | None = None
    destinations: frozenset[str] | None = None

    @property
    def is_limited(self) -> bool:
        """Return True if there are sources that it may not touch."""
        return self.sources is not None

    def may_touch(self, source: str) -> bool:
        """Return True unless it is limited to other sources."""
        return self.sources is None or source in self.sources


ACTOR_HEADER: Final = "x-gapless-actor"
"""The header in which a command says which user of the machine has called it. Only an owner's is believed."""
API: Final = Principal(name="api", role=AccessRole.OWNER)
"""The actor where nobody has said who it is."""


def may_ask(role: AccessRole, needs: AccessRole) -> bool:
    """Return True if the role may ask for an operation that needs the other one."""
    return role in (needs, AccessRole.OWNER) or (role is AccessRole.OPERATOR and needs is AccessRole.CONSUMER)


def names_in(limits: Iterable[str] | None) -> str:
    """Return names for a message."""
    return "all" if limits is None else ", ".join(sorted(limits))


def refusal(principal: Principal, named: Mapping[str, object]) -> str | None:
    """Return why this principal may not ask for an operation that names these sources and destinations; None: it may.

    `named` has the fields of the request. A limited principal must name a source of its own, and if it is bound to
    destinations, one of those.
    """
    if principal.sources is not None:
        source = named.get("source")
        if not isinstance(source, str) or source not in principal.sources:
            return (
                f"{principal.name} is limited to sources {names_in(principal.sources)}; name one of them as source, "
                "or use a token without a limit"
            )
    if principal.destinations is not None and named.get("destination") not in principal.destinations:
        return f"{principal.name} is bound to destinations {names_in(principal.destinations)}; name one of them"
    return None
