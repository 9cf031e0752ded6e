"""What the demo says at its end. Pure: rows and lines, not yet printed."""

from collections.abc import Iterator

from gapless.demo.figures import Report
from gapless.demo.screen import shown
from gapless.demo.verdict import Verdict

MOST_KEYS = 10
NEXT_STEPS = (
    ("What did your handler lose?", "gapless audit stripe-live --since 30d --against ids.csv"),
    ("Point Stripe at Gapless", "gapless check && gapless serve   (settings: config/gapless.example.toml)"),
    ("Break your own set-up", "gapless demo --provider-only --webhook-url http://127.0.0.1:8000/webhooks/stripe-demo"),
)


def rows(report: Report) -> Iterator[tuple[str, str]]:
    """The table: what, and how much."""
    last, verdict = report.last, report.verdict
    yield "events at the provider", str(last.at_provider)
    yield "webhooks lost", f"{report.lost} ({report.dropped} never sent, {report.given_up} given up)"
    yield "in the ledger by webhook", shown(last.by_webhook)
    yield "in the ledger by list", shown(last.by_list)
    yield "at the consumer", str(last.at_consumer)
    yield "duplicate webhooks absorbed", shown(last.duplicates)
    if report.recovery is not None:
        middle, longest = (span.total_seconds() for span in report.recovery)
        yield "occurred to recovered", f"median {middle:.1f} s, longest {longest:.1f} s"
    yield "receiver dead (kill -9)", ", ".join(f"{span_s:.1f} s" for span_s in report.deaths_s) or "never"
    yield "API requests failed (429, 5xx)", str(report.refusals)
    yield "attempts beyond the first", f"{verdict.repeated}{_idempotency(verdict)}"


def _idempotency(verdict: Verdict) -> str:
    if verdict.changed:
        return f", {len(verdict.changed)} events with another idempotency id"
    return ", each with the same idempotency id" if verdict.repeated else ""


def findings(verdict: Verdict) -> Iterator[str]:
    """One sentence for each thing that is wrong; none if the gap is closed."""
    if verdict.lacking:
        yield f"{len(verdict.lacking)} events of the provider never reached the consumer: {_keys(verdict.lacking)}"
    if verdict.strange:
        yield f"{len(verdict.strange)} events at the consumer are unknown to the provider: {_keys(verdict.strange)}"
    if verdict.changed:
        yield f"{len(verdict.changed)} events did not keep an idempotency id of their own: {_keys(verdict.changed)}"
    if verdict.refused:
        yield f"{verdict.refused} deliveries had a signature that is not good"


def headline(report: Report) -> str:
    """The verdict in one line."""
    if not report.verdict.closed:
        return "The gap is open."
    count = report.last.at_provider
    return f"The gap is closed: the consumer has all {count} events of the provider, and no other."


def _keys(keys: tuple[str, ...]) -> str:
    more = f" and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else ""
    return ", ".join(keys[:MOST_KEYS]) + more
