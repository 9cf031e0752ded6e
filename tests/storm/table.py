"""The result of a storm as Markdown tables, ready for `docs/figures.md`. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence

from storm.checks import Verdict
from storm.evidence import Evidence
from storm.faults import Kind
from storm.recovery import Figures, figures, recoveries


def markdown(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def of_storm(evidence: Sequence[Evidence]) -> str:
    """Return the size of each storm."""
    heads = (
        "store",
        "minutes",
        "kills",
        "seconds a kill",
        "restarts of PostgreSQL",
        "other faults",
        "events",
        "lost webhooks",
        "lied away",
    )
    return markdown(heads, map(_size, evidence))


def _size(evidence: Evidence) -> tuple[object, ...]:
    happened = Counter(fault.kind for fault in evidence.faults)
    kills, restarts = happened[Kind.KILL], happened[Kind.RESTART]
    minutes = (evidence.ended - evidence.began).total_seconds() / 60
    lied = {key for lie in evidence.lies for key in lie.keys}
    return (
        evidence.store,
        f"{minutes:.0f}",
        f"{kills:,}",
        _seconds(60 * minutes / kills if kills else None),
        f"{restarts:,}" if restarts else "",
        f"{happened.total() - kills - restarts:,}",
        f"{len(evidence.events):,}",
        f"{len(evidence.never_posted):,}",
        f"{len(lied):,}",
    )


def of_verdicts(by_store: Sequence[tuple[str, Sequence[Verdict]]]) -> str:
    """Return what was checked, and what became of it."""
    rows = [
        (store, verdict.name, "yes" if verdict.is_met else "**NO**", verdict.figure)
        for store, found in by_store
        for verdict in found
    ]
    return markdown(("store", "check", "true", "compared"), rows)


def of_problems(by_store: Sequence[tuple[str, Sequence[Verdict]]]) -> str:
    """Return every problem on a line of its own; empty if there is none."""
    return "\n".join(
        f"- {store}: {verdict.name}: {problem}"
        for store, found in by_store
        for verdict in found
        for problem in verdict.problems
    )


def of_recoveries(evidence: Sequence[Evidence]) -> str:
    """Return the seconds from each fault's end to recovery."""
    heads = (
        "fault", "store", "alone", "median s", "longest s", "in the storm", "median s", "longest s", "never",
    )  # fmt: skip
    order: list[str] = [kind.value for kind in Kind]
    rows = [_recovery(each.store, line) for each in evidence for line in figures(recoveries(each))]
    return markdown(heads, sorted(rows, key=lambda row: order.index(str(row[0]))))


def _recovery(store: str, line: Figures) -> tuple[str, ...]:
    return (
        line.kind.value,
        store,
        _count(line.alone),
        _seconds(line.median_s),
        _seconds(line.longest_s),
        _count(line.count - line.alone),
        _seconds(line.storm_median_s),
        _seconds(line.storm_longest_s),
        _count(line.never),
    )


def _count(value: int) -> str:
    return f"{value:,}" if value else ""


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
