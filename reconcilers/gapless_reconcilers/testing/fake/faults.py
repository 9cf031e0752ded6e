"""What can be made to go wrong with a fake provider, at any time while it runs."""

from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Faults:
    """All off by default. Rates are probabilities from 0 to 1, drawn from the fake's seeded source."""

    drop: float = 0.0
    """Webhooks that are never sent, nor retried."""
    duplicate: float = 0.0
    """Webhooks that are sent twice."""
    delay_s: float = 0.0
    """Seconds before a webhook is first sent."""
    reorder: float = 0.0
    """Webhooks that are held back for `reorder_s`, so that later ones overtake them."""
    reorder_s: float = 0.5
    bad_signature: float = 0.0
    """Attempts signed with a secret that nobody knows; the next attempt is drawn anew."""
    webhooks_off: bool = False
    """No webhook leaves at all; those that fall due meanwhile are lost, as with `drop`."""

    late_visible: float = 0.0
    """Events that the list shows only `late_visible_s` after they were emitted."""
    late_visible_s: float = 2.0
    unlogged: bool = False
    """What occurs meanwhile is in no list, ever: the vendor's store is off, or its hook."""
    hidden_types: frozenset[str] = frozenset()
    """Types that the list never shows."""
    empty_lists: bool = False
    """The list lies: every page is well formed, empty and the last."""
    answer_delay_s: float = 0.0
    """Seconds that each API answer takes."""
    throttle_every: int = 0
    """Each n-th API request is throttled, with a 429 or as the vendor does it; 0: none."""
    retry_after: str | None = None
    """`Retry-After` of a 429; None: none is sent."""
    error_rate: float = 0.0
    """API requests that are answered 500."""
    outage: bool = False
    """Every API request is answered 503, and no webhook leaves."""
    key_revoked: bool = False
    """Every API request is answered 401."""
