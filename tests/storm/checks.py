"""What must be true after a storm. Pure: each check takes the evidence and returns a verdict with its examples."""

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from storm.evidence import Emitted, Evidence, Lie, Sample
from storm.recovery import recoveries

MOST_EXAMPLES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of one check: what was compared, and what is wrong (nothing: the check passed)."""

    name: str
    figure: str
    problems: tuple[str, ...] = ()

    @property
    def is_met(self) -> bool:
        """Return True if nothing is wrong."""
        return not self.problems


Check = Callable[[Evidence], Verdict]


def verdicts(evidence: Evidence) -> list[Verdict]:
    """Return the verdict of every check, in the order of `CHECKS`."""
    return [check(evidence) for check in CHECKS]


def nothing_acknowledged_is_lost(evidence: Evidence) -> Verdict:
    """Every event of which a webhook was answered 2xx is in the ledger."""
    lost = evidence.acknowledged.keys() - _ledger_keys(evidence)
    return Verdict(
        name="nothing acknowledged is lost",
        figure=f"{len(evidence.acknowledged):,} acknowledged",
        problems=_named("acknowledged and not in the ledger", lost, vacuous=not evidence.acknowledged),
    )


def ledger_is_what_the_provider_lists(evidence: Evidence) -> Verdict:
    """The ledger has every event of the provider once, and no other."""
    truth, counted = {event.key for event in evidence.events}, Counter(row.key for row in evidence.ledger)
    return Verdict(
        name="ledger = what the provider lists",
        figure=f"{len(truth):,} events",
        problems=(
            *_named("listed and not in the ledger", truth - counted.keys(), vacuous=not truth),
            *_named("in the ledger and not at the provider", counted.keys() - truth),
            *_named("twice in the ledger", {key for key, times in counted.items() if times > 1}),
        ),
    )


def consumer_has_what_it_is_owed(evidence: Evidence) -> Verdict:
    """The consumer accepted every event at least once, and nothing else came; repeats are counted."""
    truth = {event.key for event in evidence.events}
    repeats = sum(len(marks) - 1 for marks in evidence.attempts.values())
    return Verdict(
        name="consumer = what it is owed",
        figure=f"{len(evidence.accepted_at):,} accepted, {repeats:,} attempts more",
        problems=(
            *_named("owed and never accepted", truth - evidence.accepted_at.keys(), vacuous=not truth),
            *_named("delivered and not the provider's", evidence.attempts.keys() - truth),
        ),
    )


def deliveries_are_recognisable(evidence: Evidence) -> Verdict:
    """All attempts of one event carry one idempotency id, and no two events share one."""
    owners: defaultdict[str, set[str]] = defaultdict(set)
    for key, marks in evidence.attempts.items():
        for mark in marks:
            owners[mark].add(key)
    changed = {key for key, marks in evidence.attempts.items() if len(set(marks)) != 1 or "" in marks}
    shared = set().union(*(keys for keys in owners.values() if len(keys) > 1)) if owners else set()
    return Verdict(
        name="repeats are recognisable",
        figure=f"{len(owners):,} idempotency ids",
        problems=(
            *_named("with more than one idempotency id", changed, vacuous=not owners),
            *_named("with an idempotency id of another event", shared),
        ),
    )


def tallies_are_the_recount(evidence: Evidence) -> Verdict:
    """The figures that are shown equal a recount of the ledger's events."""
    rows, shown = evidence.ledger, evidence.totals
    missed = [row for row in rows if row.missed]
    recount = {
        "by webhook": sum(row.via == "webhook" for row in rows),
        "by list": sum(row.via == "list" for row in rows),
        "expected": sum(row.expected for row in rows),
        "missed": len(missed),
        "recovered": len(missed),
        "late": sum(row.webhooks > 0 for row in missed),
        "duplicates": sum(max(0, row.webhooks - 1) for row in rows),
    }
    if shown is None:
        return Verdict(name="tallies = recount", figure="", problems=("the daemon showed no figures at the end",))
    figures = {
        "by webhook": shown.by_webhook,
        "by list": shown.by_list,
        "expected": shown.expected,
        "missed": shown.missed,
        "recovered": shown.recovered,
        "late": shown.late,
        "duplicates": shown.duplicates,
    }
    wrong = [
        f"{name}: shown {figures[name]}, counted {recount[name]}" for name in recount if figures[name] != recount[name]
    ]
    text = ", ".join(f"{name} {count:,}" for name, count in recount.items())
    return Verdict(name="tallies = recount of the ledger", figure=text, problems=tuple(wrong))


def counts_are_true(evidence: Evidence) -> Verdict:
    """The counts agree with what happened outside: what was sent, what was answered, what was listed when."""
    rows = {row.key: row for row in evidence.ledger}
    early = {
        key
        for key, at in evidence.first_acknowledged_at.items()
        if key not in evidence.first_shown_at or at < evidence.first_shown_at[key]
    }
    not_missed = {key for key in evidence.never_posted if key in rows and not (rows[key].missed or rows[key].awaited)}
    both = {key for key, row in rows.items() if row.missed and row.awaited}
    falsely_missed = {key for key in early if key in rows and rows[key].missed}
    too_few = {key for key, count in evidence.acknowledged.items() if key in rows and rows[key].webhooks < count}
    too_many = {key for key, row in rows.items() if row.webhooks > evidence.posts.get(key, 0)}
    not_expected = {key for key, row in rows.items() if not row.expected}
    return Verdict(
        name="counts = what happened",
        figure=f"{len(evidence.never_posted):,} never posted, {len(early):,} acknowledged before they were listed",
        problems=(
            *_named("no webhook came, and not counted as missed", not_missed),
            *_named("counted as missed before it was judged", both),
            *_named("acknowledged before it was listed, and counted as missed", falsely_missed),
            *_named("with fewer webhooks counted than were answered 2xx", too_few),
            *_named("with more webhooks counted than were sent", too_many),
            *_named("subscribed and not counted as expected", not_expected),
        ),
    )


def completeness_was_true(evidence: Evidence) -> Verdict:
    """Each claim "complete up to" held against the list as it stood when it was checked.

    An event is owed to the claim if it occurred before that time and the list showed it at `checked_at`. It need not
    be in the ledger if the page that was read lacked it, and no page had shown it since.
    """
    claims = [s for s in evidence.samples if s.ledger_read and s.complete_up_to and s.checked_at]
    times, hidden = [claim.at for claim in claims], _hidden(evidence.lies)
    wrong = []
    for event in evidence.events:
        recorded = evidence.recorded_at.get(event.key)
        end = len(claims) if recorded is None else bisect_left(times, recorded)
        for claim in claims[bisect_left(times, event.visible_at) : end]:
            if _is_owed(event, claim) and not _was_hidden(event.key, claim, hidden, evidence.first_shown_at):
                wrong.append(
                    f"{event.key} of {_clock(event.occurred_at)} was not in the ledger at {_clock(claim.at)}: "
                    f"complete up to {_clock(claim.complete_up_to)}, checked at {_clock(claim.checked_at)}"
                )
                break
    return Verdict(
        name="complete_up_to was true",
        figure=f"{len(claims):,} claims",
        problems=(
            *_counted(wrong),
            *(() if claims else ("no claim could be checked",)),
        ),
    )


def later_finds_are_counted(evidence: Evidence) -> Verdict:
    """What a pass recorded after the watermark had passed its time is counted as found behind the watermark.

    At least: the events that a sample after that showed to be absent. At most: those and the ones that were first seen
    in the sample that first showed the watermark past them, because a sample does not say which of the two came first.
    """
    watermarks, by_list = _Watermarks(evidence.samples), {row.key for row in evidence.ledger if row.via == "list"}
    least = most = 0
    for event in evidence.events:
        recorded, claimed_at = evidence.recorded_at.get(event.key), watermarks.first_past(event.occurred_at)
        if event.key not in by_list or recorded is None or claimed_at is None:
            continue
        least += claimed_at < recorded
        most += claimed_at <= recorded
    counted = None if evidence.totals is None else evidence.totals.found_behind
    is_right = counted is not None and least <= counted <= most
    problem = f"found_behind is {counted}, and must be from {least} to {most}"
    return Verdict(
        name="found_behind has what was shown later",
        figure=f"{counted} counted; {least} to {most} seen",
        problems=() if is_right else (problem,),
    )


def nothing_is_left_over(evidence: Evidence) -> Verdict:
    """At the end nothing is missing, lost, unrecoverable, dead or pending, and nobody is needed."""
    totals, last = evidence.totals, next((s for s in reversed(evidence.samples) if s.answered), None)
    if totals is None or last is None:
        return Verdict(name="nothing is left over", figure="", problems=("the daemon showed no figures at the end",))
    counts = {
        "missing_open": totals.missing_open,
        "lost": totals.lost,
        "unrecoverable intervals": totals.unrecoverable,
        **{f"deliveries {state}": count for state, count in totals.backlog.items()},
    }
    return Verdict(
        name="nothing is left over",
        figure=", ".join(f"{name} {count}" for name, count in counts.items()),
        problems=(
            *(f"{name}: {count}" for name, count in counts.items() if count),
            *(f"trouble at the end: {kind}" for kind in last.needs_a_person),
        ),
    )


def every_fault_was_recovered_from(evidence: Evidence) -> Verdict:
    """After each fault everything was recorded, delivered and compared again; in the calm, if it was alone."""
    found = recoveries(evidence)
    never = [f"{each.fault.kind} of {_clock(each.fault.ended)}: never" for each in found if each.took is None]
    late = [
        f"{each.fault.kind} of {_clock(each.fault.ended)}: after {each.took.total_seconds():.0f} s, not in the calm"
        for each in found
        if each.took is not None and each.fault.alone and each.took > evidence.calm
    ]
    return Verdict(
        name="every fault was recovered from",
        figure=f"{len(found):,} faults",
        problems=(*_counted([*never, *late]), *(() if found else ("there was no fault",))),
    )


CHECKS: tuple[Check, ...] = (
    nothing_acknowledged_is_lost,
    ledger_is_what_the_provider_lists,
    consumer_has_what_it_is_owed,
    deliveries_are_recognisable,
    tallies_are_the_recount,
    counts_are_true,
    completeness_was_true,
    later_finds_are_counted,
    nothing_is_left_over,
    every_fault_was_recovered_from,
)


class _Watermarks:
    """Answers which sample first showed the watermark past a time; only of samples that read the ledger too."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._marks: list[datetime] = []
        self._seen_at: list[datetime] = []
        for sample in samples:
            if sample.ledger_read and sample.watermark and (not self._marks or sample.watermark > self._marks[-1]):
                self._marks.append(sample.watermark)
                self._seen_at.append(sample.at)

    def first_past(self, time: datetime) -> datetime | None:
        at = bisect_right(self._marks, time)
        return self._seen_at[at] if at < len(self._seen_at) else None


def _ledger_keys(evidence: Evidence) -> set[str]:
    return {row.key for row in evidence.ledger}


def _hidden(lies: Iterable[Lie]) -> Mapping[str, list[datetime]]:
    """Return when a page lacked each event."""
    found: defaultdict[str, list[datetime]] = defaultdict(list)
    for lie in lies:
        for key in lie.keys:
            found[key].append(lie.at)
    return found


def _is_owed(event: Emitted, claim: Sample) -> bool:
    """Return True if the claim says that the event is in the ledger."""
    if claim.complete_up_to is None or claim.checked_at is None:
        return False
    return event.occurred_at < claim.complete_up_to and event.visible_at <= claim.checked_at


def _was_hidden(
    key: str, claim: Sample, hidden: Mapping[str, list[datetime]], first_shown_at: Mapping[str, datetime]
) -> bool:
    """Return True if a page lacked the event before the claim, and no page had shown it yet."""
    lied = any(at <= claim.at for at in hidden.get(key, ()))
    shown = first_shown_at.get(key)
    return lied and (shown is None or claim.checked_at is None or shown > claim.checked_at)


def _named(what: str, keys: Iterable[str], *, vacuous: bool = False) -> tuple[str, ...]:
    """Return one problem that counts and names the keys, or none. `vacuous`: there was nothing to compare."""
    if vacuous:
        return (f"nothing to compare: {what}",)
    names = sorted(keys)
    if not names:
        return ()
    return (f"{len(names):,} {what}: {', '.join(names[:MOST_EXAMPLES])}{' …' if len(names) > MOST_EXAMPLES else ''}",)


def _counted(problems: list[str]) -> Iterator[str]:
    yield from problems[:MOST_EXAMPLES]
    if len(problems) > MOST_EXAMPLES:
        yield f"and {len(problems) - MOST_EXAMPLES:,} more"


def _clock(time: datetime | None) -> str:
    return "-" if time is None else time.strftime("%H:%M:%S.%f")[:-3]
