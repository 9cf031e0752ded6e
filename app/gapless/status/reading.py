"""Say for people how a source is read: its plan, the ages of events, and what is used of the vendor's grant. Pure."""

from datetime import timedelta

from gapless.ledger.budgets import GrantUse
from gapless.ledger.learned import Learned
from gapless.status.report import ListReport
from gapless.text import format_span


def reading_in_words(listed: ListReport) -> list[str]:
    """Return what is known of it, a sentence each; empty before the first plan."""
    said = []
    if listed.plan is not None:
        said.append(f"It {listed.plan.words}.")
    if listed.learned is not None:
        said.append(_ages(listed.learned))
    if listed.grant is not None:
        said.append(_use(listed.grant))
    return said


def _ages(learned: Learned) -> str:
    settle, grace = (format_span(timedelta(seconds=each)) for each in (learned.settle_s, learned.grace_s))
    return (
        f"About {learned.events_a_day:,.0f} events a day; a listed one is recorded from an age of {settle} on, and is "
        f"missed if no webhook came by {grace}."
    )


def _use(use: GrantUse) -> str:
    requests = f"{use.used:,} requests" if use.granted is None else f"{use.used:,} of {use.granted:,} requests"
    by_purpose = sorted(use.by_purpose.items(), key=lambda each: -each[1])
    parts = ", ".join(f"{purpose} {count:,}" for purpose, count in by_purpose)
    return f"{requests} in the last {format_span(use.period)}{': ' if parts else ''}{parts}."
