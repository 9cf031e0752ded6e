"""The bars of an hour each: where they stand and what they say. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from gapless.console.api.hours import HoursOfSource
from gapless.console.pages.formats import count

WIDTH: Final = 12
"""Units of a bar, with its gap."""
HEIGHT: Final = 44
"""Units of the highest bar."""
FLOOR: Final = 48
LEAST: Final = 2.5
"""Units of what was recovered at least, so that 1 in 10,000 can be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One hour. Heights and places are units of the picture."""

    x: int
    title: str
    usual_y: float
    usual: float
    recovered_y: float
    recovered: float
    is_open: bool
    was_gap: bool
    is_proven: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """The hours of a source as bars, and a sentence for those who do not see them."""

    bars: tuple[Bar, ...]
    width: int
    proof_x: float | None
    """Where the line of the proof stands; None: nothing is proven."""
    label: str


def chart(hours: HoursOfSource, *, polled: bool, now: datetime) -> Chart:
    """Return the picture. `polled`: the list is the only way, so what it brought came as usual."""
    usual = [each.by_webhook + (each.by_list + each.by_redelivery if polled else 0) for each in hours.items]
    found = [0 if polled else each.by_list + each.by_redelivery for each in hours.items]
    top = max((a + b for a, b in zip(usual, found, strict=True)), default=0) or 1
    way = "list" if polled else "webhook"
    bars = []
    for at, each in enumerate(hours.items):
        height = round(usual[at] / top * HEIGHT, 1)
        recovered = round(max(found[at] / top * HEIGHT, LEAST), 1) if found[at] else 0.0
        said = [f"{count(usual[at])} by {way}"]
        said += [f"{count(found[at])} recovered from the list"] if found[at] else []
        said += [f"{count(each.missing)} still missing"] if each.missing else []
        said += [] if each.is_proven else ["not proven yet"]
        bars.append(
            Bar(
                x=at * WIDTH,
                title=f"{each.start:%H:%M}: {', '.join(said)}",
                usual_y=round(FLOOR - height, 1),
                usual=height,
                recovered_y=round(FLOOR - height - recovered, 1),
                recovered=recovered,
                is_open=each.missing > 0,
                was_gap=each.missed > 0,
                is_proven=each.is_proven,
            )
        )
    return Chart(
        bars=tuple(bars),
        width=WIDTH * len(bars),
        proof_x=_place(hours),
        label=_sentence(hours, sum(usual), sum(found), way, now),
    )


def _place(hours: HoursOfSource) -> float | None:
    if hours.proven_until is None or not hours.items:
        return None
    place = (hours.proven_until - hours.items[0].start) / timedelta(hours=1) * WIDTH
    return round(place, 1) if 0 <= place <= WIDTH * len(hours.items) else None


def _sentence(hours: HoursOfSource, usual: int, found: int, way: str, now: datetime) -> str:
    missed, missing = sum(each.missed for each in hours.items), sum(each.missing for each in hours.items)
    parts = [f"Events per hour, last {len(hours.items)} h: {count(usual)} by {way}"]
    parts += [f"{count(found)} recovered from the list"] if found else []
    parts += [f"{count(missed)} missed by webhook"] if missed else []
    parts += [f"{count(missing)} still missing"] if missing else []
    until = hours.proven_until
    day = "" if until is None or until.date() == now.date() else f"{until:%Y-%m-%d} "
    proven = "nothing is proven" if until is None else f"proven up to {day}{until:%H:%M} UTC"
    return f"{', '.join(parts)}; {proven}."
