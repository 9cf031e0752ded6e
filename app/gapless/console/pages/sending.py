"""What a person can do to deliveries and destinations: send again, let go, give up, pause and resume. Pure."""

from collections.abc import Mapping
from datetime import datetime

from gapless.console.pages.preview import (
    REASON,
    ActionPreview,
    Asked,
    NothingToDo,
    command,
    needed,
    option,
)
from gapless.ledger.deliveries import DeliveryState
from gapless.status.report import StatusReport

NOTED = ("--note", f'"{REASON}"', "--yes")
"""The end of commands that ask before they act, and that take the reason as a note."""


def requeue(report: StatusReport, asked: Asked) -> ActionPreview:
    """Say what sending dead letters again would do."""
    key, destination, reason = (asked.get(name) for name in ("key", "destination", "reason"))
    count = 1 if key else _dead(report, destination, reason)
    if not count:
        raise NothingToDo("there is no dead letter of this kind any more")
    to = f" to {destination}" if destination else " to every destination"
    return ActionPreview(
        title=f"Requeue {count} dead letter{'' if count == 1 else 's'}{to}",
        verb=f"Requeue {count}",
        effects=("Each gets new attempts, with the same id and the same idempotency key.",),
        command=command(
            "dead", "requeue", key, *option("--destination", destination), *option("--reason", reason), *NOTED
        ),
    )


def release_held(report: StatusReport, asked: Asked) -> ActionPreview:
    """Say what letting held deliveries go would do."""
    key, destination, reason = (asked.get(name) for name in ("key", "destination", "reason"))
    held = [each for each in report.destinations if destination in (None, each.name)]
    count = 1 if key else sum(_held(each.held, reason) for each in held)
    if not count:
        raise NothingToDo("there is no held delivery of this kind any more")
    return ActionPreview(
        title=f"Let {count} held deliver{'y' if count == 1 else 'ies'} go",
        verb=f"Let {count} go",
        effects=(
            "They are sent at once, and are not held again.",
            "Those of another account are sent only if that is the reason which you chose.",
        ),
        command=command(
            "dead", "requeue", "--held", key, *option("--destination", destination), *option("--reason", reason), *NOTED
        ),
    )


def _narrowed(asked: Asked) -> tuple[str | None, ...]:
    return (*option("--destination", asked.get("destination")), *option("--reason", asked.get("reason")))


def _held(by_reason: Mapping[str, int], reason: str | None) -> int:
    return sum(by_reason.values()) if reason is None else by_reason.get(reason, 0)


def _dead(report: StatusReport, destination: str | None, reason: str | None) -> int:
    chosen = [each for each in report.destinations if destination in (None, each.name)]
    return sum(each.backlog[DeliveryState.DEAD] if reason is None else each.dead.get(reason, 0) for each in chosen)


def waiting_args(asked: Asked, _: datetime) -> dict[str, object]:
    """Return the arguments of the operations on dead letters and held deliveries."""
    args: dict[str, object] = {name: asked[name] for name in ("destination", "reason") if name in asked}
    return args | ({"keys": [asked["key"]]} if "key" in asked else {})


def discard(report: StatusReport, asked: Asked) -> ActionPreview:
    """Say what giving up dead letters would do."""
    return _given_up(asked, _dead(report, asked.get("destination"), asked.get("reason")), held=False)


def discard_held(report: StatusReport, asked: Asked) -> ActionPreview:
    """Say what giving up held deliveries would do."""
    chosen = [each for each in report.destinations if asked.get("destination") in (None, each.name)]
    return _given_up(asked, sum(_held(each.held, asked.get("reason")) for each in chosen), held=True)


def _given_up(asked: Asked, count: int, *, held: bool) -> ActionPreview:
    if not count:
        raise NothingToDo("there is nothing of this kind any more")
    kind = "held deliver" if held else "dead letter"
    many = "ies" if held else "s"
    flag = "--held" if held else None
    return ActionPreview(
        title=f"Discard {count} {kind}{('y' if held else '') if count == 1 else many}",
        verb=f"Discard {count}",
        effects=("They are not owed any more.", "The events stay in the ledger, and can be replayed."),
        command=command("dead", "discard", flag, *_narrowed(asked), *NOTED),
        danger=True,
    )


def pause(report: StatusReport, asked: Asked) -> ActionPreview:
    """Say what pausing a destination would do."""
    name = needed(asked, "destination")
    found = next((each for each in report.destinations if each.name == name), None)
    if found is None or found.pause is not None:
        raise NothingToDo(f"destination {name!r} is not there, or is paused already")
    return ActionPreview(
        title=f"Pause {name}",
        verb="Pause",
        effects=("Events are still received, recorded and compared.", "What it is owed waits until it is resumed."),
        command=command("destination", "pause", name, "--reason", f'"{REASON}"'),
    )


def resume(report: StatusReport, asked: Asked) -> ActionPreview:
    """Say what resuming a destination would do."""
    name = needed(asked, "destination")
    found = next((each for each in report.destinations if each.name == name), None)
    if found is None or found.pause is None:
        raise NothingToDo(f"destination {name!r} is not paused")
    count = found.backlog[DeliveryState.PENDING]
    return ActionPreview(
        title=f"Resume {name}",
        verb="Resume",
        effects=(
            f"{count} deliver{'y waits' if count == 1 else 'ies wait'}, and {'is' if count == 1 else 'are'} sent now.",
        ),
        command=command("destination", "resume", name),
    )
