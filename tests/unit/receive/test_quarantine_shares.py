"""The share that is deleted from when a source's quarantine is full."""

from hypothesis import given
from hypothesis import strategies as st

from gapless.ledger.quarantine import Caps, Share, largest_if_over

SHARES = st.lists(
    st.builds(
        Share,
        name=st.text("abcdefgh", min_size=1, max_size=1),
        rows=st.integers(1, 100),
        size_bytes=st.integers(1, 9_999),
    ),
    max_size=8,
    unique_by=lambda share: share.name,
)


@given(occupied=SHARES, rows=st.integers(1, 300), size=st.integers(1, 30_000))
def test_nothing_gives_way_while_all_fit_and_else_the_largest(occupied: list[Share], rows: int, size: int) -> None:
    victim = largest_if_over(occupied, Caps(rows=rows, size_bytes=size))
    over_rows = sum(share.rows for share in occupied) > rows
    over_size = sum(share.size_bytes for share in occupied) > size
    assert (victim is not None) == (over_rows or over_size)
    if victim is not None:
        measure = "rows" if over_rows else "size_bytes"
        assert getattr(victim, measure) == max(getattr(share, measure) for share in occupied)


def test_a_flood_of_one_reason_displaces_only_itself() -> None:
    rare, flood = Share(name="stale", rows=3, size_bytes=9_000), Share(name="signature", rows=98, size_bytes=8_000)
    assert largest_if_over([rare, flood], Caps(rows=100, size_bytes=1 << 20)) is flood
