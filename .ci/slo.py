"""Writes the recording rules and alerts of the service levels: `python .ci/slo.py > config/prometheus/slo.yml`."""

import sys
from collections.abc import Iterator

WINDOWS = ("5m", "30m", "1h", "6h", "3d")
BUDGETS = {"accepted": 0.0005, "recorded": 0.001, "proven": 0.001, "first_attempt": 0.01, "delivered": 0.01}
BUCKETS = (5, 15, 30, 60, 120, 300, 1800, 6 * 3600, 86400, 7 * 86400)
"""Those of `gapless_recovery_seconds`."""
OWNER = "cluster, namespace, job"
SOURCE, DESTINATION = f"by ({OWNER}, source)", f"by ({OWNER}, destination)"
HEAD = """\
# Service levels: the share of errors over several windows, and the alerts on how fast they use up what is allowed.
# Made by .ci/slo.py. Without traffic, or where something is not known, a share is absent.
#   accepted       99.95 % of the expected events were not lost by a receiver of ours that was down or refused them
#   recorded       99.9 % of the expected events came by webhook, or were recovered within the plan of their source
#   proven         99.9 % of the time, complete up to within three intervals and the grace
#   first_attempt  99 % of deliveries are attempted within 60 s of being due
#   delivered      99 % of deliveries are done within 60 s of being recorded, which is up to the consumer too
groups:
  - name: gapless-slo
    rules:
"""


def increase(by: str, series: str, window: str, *, ledger: bool = False, kept: str = "") -> str:
    """Return the rise of a counter: the same on every replica if it is of the ledger, else each has its own."""
    if not ledger:
        return f"sum {by} (increase({series}[{window}]))"
    every = by.replace(")", f", {kept})") if kept else by
    return f"sum {by} (max {every} (increase({series}[{window}])))"


def errors(slo: str, window: str) -> str:
    """Return the share of errors of a service level over a window."""
    if slo == "proven":
        return f"1 - avg_over_time(gapless:proven[{window}])"
    if slo == "first_attempt":
        done = increase(DESTINATION, 'gapless_first_attempt_seconds_bucket{le="60.0"}', window)
        return f"1 - {done} / ({increase(DESTINATION, 'gapless_first_attempt_seconds_count', window)} > 0)"
    if slo == "delivered":
        dead = increase(DESTINATION, 'gapless_deliveries_total{outcome="dead"}', window)
        every = f"({increase(DESTINATION, 'gapless_delivery_seconds_count', window)} + {dead})"
        done = increase(DESTINATION, 'gapless_delivery_seconds_bucket{le="60.0"}', window)
        return f"1 - {done} / ({every} > 0)"
    expected = f"({increase(SOURCE, 'gapless_expected_total', window, ledger=True)} > 0)"
    if slo == "accepted":
        missed = 'gapless_missed_total{cause=~"receiver_down|refused"}'
        return f"{increase(SOURCE, missed, window, ledger=True, kept='cause')} / {expected}"
    recovered = increase(SOURCE, "gapless_recovery_seconds_count", window)
    by_bucket = f"sum by ({OWNER}, source, le) (increase(gapless_recovery_seconds_bucket[{window}]))"
    in_plan = f"sum {SOURCE} ({by_bucket} and on ({OWNER}, source, le) gapless:plan_bucket)"
    return f"({recovered} - {in_plan}) / {expected}"


def basis() -> Iterator[str]:
    """Yield the rules that the others use."""
    yield "      # 1 while the source is proven up to as late as it is planned to be."
    late = f"3 * max {SOURCE} (gapless_poll_interval_seconds) + max {SOURCE} (gapless_grace_seconds)"
    proven = f"time() - max {SOURCE} (gapless_complete_up_to_timestamp_seconds) <= bool ({late})"
    yield from rule("gapless:proven", proven)
    yield from rule("gapless:plan_seconds", f'max {SOURCE} (gapless_planned_recovery_seconds{{share="0.99"}})')
    yield "      # The bucket of gapless_recovery_seconds that the plan of the source falls into, as a label."
    plan = "gapless:plan_seconds"
    low = (0, *BUCKETS)
    steps = (f"{high} * (({plan} > bool {low[at]}) * ({plan} <= bool {high}))" for at, high in enumerate(BUCKETS))
    number = f'count_values {SOURCE} ("le", {" + ".join(steps)})'
    yield from rule("gapless:plan_bucket", f'label_replace({number}, "le", "$1.0", "le", "(.+)")')


def rule(name: str, expr: str, slo: str = "") -> Iterator[str]:
    """Yield a recording rule."""
    yield f"      - record: {name}"
    yield f"        expr: >-\n          {expr}"
    if slo:
        yield f"        labels: {{ slo: {slo} }}"


def over(window: str, burn: float, slo: str) -> str:
    """Return that a service level was used up so many times as fast as is allowed."""
    return f'gapless:slo_errors:{window}{{slo="{slo}"}} > {burn * BUDGETS[slo]:.6g}'


def alert(name: str, severity: str, expr: str, summary: str, description: str) -> Iterator[str]:
    """Yield an alert."""
    yield f"\n      - alert: {name}"
    yield f"        expr: >-\n          {expr}"
    yield f"        labels: {{ severity: {severity} }}"
    yield f"        annotations:\n          runbook_url: https://gapless.example/docs/runbooks/{name}.md"
    yield f'          summary: "{summary}"'
    yield f"          description: >-\n            {description}"


def fast(slo: str) -> str:
    """Return that a service level is used up within days."""
    return (
        f"({over('1h', 14.4, slo)} and {over('5m', 14.4, slo)})\n"
        f"          or ({over('6h', 6, slo)} and {over('30m', 6, slo)})"
    )


def slow(slo: str) -> str:
    """Return that a service level is used up faster than is allowed."""
    return f"({over('3d', 1, slo)} and {over('6h', 1, slo)})"


def lines() -> Iterator[str]:
    """Yield the rules."""
    yield from basis()
    for slo in BUDGETS:
        for window in WINDOWS:
            yield from rule(f"gapless:slo_errors:{window}", errors(slo, window), slo)
    yield from alert(
        "GaplessAcceptedBurns",
        "page",
        fast("accepted"),
        "{{ $labels.source }}: {{ $value | humanizePercentage }} of its events were lost by our receiver",
        "It was down, or it refuses genuine webhooks: `gapless event list --missed` and `gapless quarantine list`.",
    )
    tickets = [slow("accepted"), *(part for slo in list(BUDGETS)[1:] for part in (fast(slo), slow(slo)))]
    yield from alert(
        "GaplessSloBurns",
        "ticket",
        "\n          or ".join(tickets),
        "{{ $labels.source }}{{ $labels.destination }}: {{ $labels.slo }} fails for {{ $value | humanizePercentage }}",
        "More than is allowed over 30 days, if it goes on. `gapless status` says what is wrong.",
    )


def text() -> str:
    """Return the file."""
    return HEAD + "\n".join(lines()) + "\n"


if __name__ == "__main__":
    sys.stdout.write(text())
