"""Why a source is read next, in words."""

from datetime import timedelta

import pytest
from reports import HOUR, MINUTE, NOW, SOURCE, listed

from gapless.cli.source_view import REASONS, why
from gapless.operations.source_facts import SourceFacts
from gapless.reconcile.urgency import Reason
from gapless.status.report import SourceReport

FACTS = SourceFacts(
    lookback=None, known_from=None, busiest=(), quietest=(), look=None, look_due=None, last_webhook=None,
    last_sweep=None, sweep_pieces=0, sweep_pieces_done=0,
)  # fmt: skip
NEXT = NOW + MINUTE
LOOK = {"look": "silence", "look_due": NEXT}


def test_every_reason_has_words() -> None:
    assert set(REASONS) == {each.value for each in Reason}


@pytest.mark.parametrize(
    ("source", "look", "words"),
    [
        (SOURCE, {}, "its turn comes"),
        (SOURCE, LOOK, REASONS["silence"]),
        (SOURCE, {**LOOK, "look_due": NEXT + HOUR}, "its turn comes"),
        (listed(SOURCE, unpaid_until=NEXT), LOOK, "the grant has not refilled the requests before"),
        (listed(SOURCE, unpaid_until=NEXT - timedelta(seconds=1)), {}, "its turn comes"),
        (listed(SOURCE, waiting_until=NEXT, unpaid_until=NEXT), LOOK, "the provider wants a pause until then"),
    ],
)
def test_the_next_reading_has_one_reason(source: SourceReport, look: dict[str, object], words: str) -> None:
    facts = SourceFacts(**{each: getattr(FACTS, each) for each in FACTS.__dataclass_fields__} | look)
    assert why(source, facts) == words
