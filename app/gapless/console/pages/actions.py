"""What a person can do on the pages, by the operations of the registry.

The page of each asks for a reason, which goes into the audit log.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from gapless.console.pages import sending
from gapless.console.pages.preview import (
    REASON,
    ActionPreview,
    Asked,
    FormField,
    NothingToDo,
    PageAction,
    command,
    needed,
    number,
    option,
    told,
)
from gapless.domain import from_us
from gapless.operations.principals import GRANTED, AccessRole
from gapless.status.report import StatusReport
from gapless.text import format_time, read_time

SINCE: Final = (
    ("", "where it was last read up to"),
    ("1h", "1 h ago"),
    ("24h", "24 h ago"),
    ("7d", "7 d ago"),
    ("30d", "30 d ago"),
)
"""From when on a list is read again."""


def _replay(report: StatusReport, asked: Asked) -> ActionPreview:
    active = [each.name for each in report.destinations if each.state == "active"]
    if not active:
        raise NothingToDo("no destination is configured that could get it")
    source, key = needed(asked, "source"), needed(asked, "key")
    chosen = asked.get("destination", active[0])
    words = ("event", "replay", key, "--source", source, "--destination", "DESTINATION", *sending.NOTED)
    return ActionPreview(
        title="Replay this event",
        verb="Replay 1",
        effects=(
            "Sends it to the destination once more, whether or not it had it before.",
            "It sees the same id and the same idempotency key.",
        ),
        fields=(
            FormField(
                name="destination",
                label="To",
                choices=tuple((each, each) for each in active),
                value=chosen,
                word="DESTINATION",
            ),
        ),
        command=command(*words),
    )


def _read(report: StatusReport, asked: Asked) -> ActionPreview:
    names = [each.name for each in report.sources if each.listed is not None and each.state == "active"]
    if not names:
        raise NothingToDo("no source has a list that could be read")
    return ActionPreview(
        title="Read a list now",
        verb="Read now",
        effects=(
            "Reads the provider's list again.",
            "What is missing is recorded and delivered; what is known already is not sent again.",
            "It can be cancelled.",
        ),
        fields=(
            FormField(
                name="source",
                label="Source",
                choices=tuple((each, each) for each in names),
                value=asked.get("source", names[0]),
                word="SOURCE",
            ),
            FormField(name="since", label="From", choices=SINCE, value=asked.get("since", "")),
        ),
        command=command("source", "pass", "SOURCE"),
    )


def _read_args(asked: Asked, now: datetime) -> dict[str, object]:
    args: dict[str, object] = {"source": asked.get("source")}
    since = asked.get("since")
    try:
        return args | ({"since": read_time(since, now).isoformat()} if since else {})
    except ValueError as error:
        raise NothingToDo(str(error)) from None


def _cancel(_: StatusReport, asked: Asked) -> ActionPreview:
    number = needed(asked, "id")
    return ActionPreview(
        title=f"Cancel pass {number}",
        verb="Cancel the pass",
        effects=("It ends after the page that it reads now. What it has recorded stays.",),
        command=command("pass", "cancel", number),
        danger=True,
    )


def _release(_: StatusReport, asked: Asked) -> ActionPreview:
    number, source = asked.get("id"), asked.get("source")
    if number is None and source is None:
        raise NothingToDo("name a webhook or a source")
    what = f"webhook {number}" if number else f"all refused webhooks of {source}"
    return ActionPreview(
        title=f"Release {what}",
        verb="Verify again",
        effects=(
            "Each is verified again with today's secrets, as of when it was received.",
            "What verifies is recorded and delivered; the rest stays where it is.",
        ),
        command=command("quarantine", "release", number, *option("--source", None if number else source)),
    )


def _release_args(asked: Asked, _: datetime) -> dict[str, object]:
    if "id" in asked:
        return {"id": number(asked["id"])}
    return {"source": asked.get("source")}


def _acknowledge(report: StatusReport, asked: Asked) -> ActionPreview:
    source = needed(asked, "source")
    interval = asked.get("interval")
    found = next((each for each in report.sources if each.name == source), None)
    open_ = [] if found is None else list(found.not_acknowledged)
    chosen = [each for each in open_ if interval in (None, str(each.id))]
    expired = 0 if found is None or interval else found.quarantine_expired
    if not chosen and not expired:
        raise NothingToDo("nothing of this source waits to be acknowledged any more")
    first = [
        f"From {format_time(from_us(each.start_us))} to {format_time(from_us(each.end_us))}." for each in chosen[:3]
    ]
    purged = (f"{expired} refused webhooks that were purged unjudged are acknowledged too.",) if expired else ()
    return ActionPreview(
        title=f"Acknowledge {len(chosen)} interval{'' if len(chosen) == 1 else 's'} of {source}",
        verb=f"Acknowledge {len(chosen)}" if chosen else "Acknowledge",
        effects=(*first, "It stays unrecoverable, and in every report. It is no trouble any more.", *purged),
        hint="Say what you compared, and where. It stands beside the interval for good.",
        command=command("source", "acknowledge", source, *option("--interval", interval), "--reason", f'"{REASON}"'),
    )


def _acknowledge_args(asked: Asked, _: datetime) -> dict[str, object]:
    of = {"intervals": [number(asked["interval"])]} if "interval" in asked else {}
    return {"source": asked.get("source"), **of}


def _dismiss(_: StatusReport, asked: Asked) -> ActionPreview:
    source, key = needed(asked, "source"), needed(asked, "key")
    return ActionPreview(
        title="Dismiss a row that cannot be read",
        verb="Dismiss 1",
        effects=("Its time becomes unrecoverable, acknowledged for this reason. It is not reported again.",),
        command=command("missing", "dismiss", key, "--source", source, "--reason", f'"{REASON}"'),
        danger=True,
    )


def _new_token(_: StatusReport, asked: Asked) -> ActionPreview:
    lasts = (("30d", "in 30 d"), ("90d", "in 90 d"), ("365d", "in 1 y"))
    return ActionPreview(
        title="New token",
        verb="Make",
        effects=("It is shown once, on the next page. The ledger keeps only its digest.",),
        fields=(
            FormField(
                name="name", label="Name", hint="a-z, 0-9 and single dashes", word="NAME", value=asked.get("name", "")
            ),
            FormField(
                name="role",
                label="Role",
                choices=tuple((each.value, each.value) for each in GRANTED if each is not AccessRole.CONSUMER),
                value=asked.get("role", "viewer"),
                word="ROLE",
            ),
            FormField(name="expires", label="Expires", choices=lasts, value=asked.get("expires", "90d"), word="WHEN"),
        ),
        command=command("token", "create", "NAME", "--role", "ROLE", "--expires", "WHEN"),
    )


def _new_token_args(asked: Asked, now: datetime) -> dict[str, object]:
    try:
        ago = read_time(asked.get("expires", "90d"), now)
    except ValueError as error:
        raise NothingToDo(str(error)) from None
    return {"name": asked.get("name"), "role": asked.get("role"), "expires": (now + (now - ago)).isoformat()}


def _revoke(_: StatusReport, asked: Asked) -> ActionPreview:
    name = needed(asked, "name")
    return ActionPreview(
        title=f"Revoke {name}",
        verb="Revoke",
        effects=(
            "It stops working at once, in all processes. Its name stays in the audit log, and is not given again.",
        ),
        command=command("token", "revoke", name),
        danger=True,
    )


ACTIONS: Final[Mapping[str, PageAction]] = {
    "replay": PageAction(
        operation="event.replay",
        prepare=_replay,
        args=lambda asked, _: {
            "keys": [asked.get("key", "")],
            "source": asked.get("source"),
            "destination": asked.get("destination"),
        },
        done=told("replayed", "Replayed: {}. It is in the audit log."),
    ),
    "read": PageAction(
        operation="source.pass",
        prepare=_read,
        args=_read_args,
        done=lambda result: f"The list of {result.get('source')} is read now. It is in the audit log.",
    ),
    "cancel": PageAction(
        operation="pass.cancel",
        prepare=_cancel,
        args=lambda asked, _: {"ids": [number(asked.get("id", ""))]},
        done=lambda _: "The pass is cancelled. It is in the audit log.",
    ),
    "requeue": PageAction(
        operation="dead.requeue",
        prepare=sending.requeue,
        args=sending.waiting_args,
        done=told("requeued", "Requeued: {}. It is in the audit log."),
    ),
    "release-held": PageAction(
        operation="held.release",
        prepare=sending.release_held,
        args=sending.waiting_args,
        done=told("released", "Let go: {}. It is in the audit log."),
    ),
    "discard": PageAction(
        operation="dead.discard",
        prepare=sending.discard,
        args=sending.waiting_args,
        done=told("discarded", "Discarded: {}. It is in the audit log."),
    ),
    "discard-held": PageAction(
        operation="held.discard",
        prepare=sending.discard_held,
        args=sending.waiting_args,
        done=told("discarded", "Discarded: {}. It is in the audit log."),
    ),
    "pause": PageAction(
        operation="destination.pause",
        prepare=sending.pause,
        args=lambda asked, _: {"destination": asked.get("destination")},
        done=told("destination", "Paused: {}. It is in the audit log."),
        reason="reason",
    ),
    "resume": PageAction(
        operation="destination.resume",
        prepare=sending.resume,
        args=lambda asked, _: {"destination": asked.get("destination")},
        done=told("destination", "Resumed: {}. It is in the audit log."),
    ),
    "release": PageAction(
        operation="quarantine.release",
        prepare=_release,
        args=_release_args,
        done=lambda result: (
            f"Released: {result.get('released')}, new: {result.get('new')}, still refused: {result.get('refused')}."
        ),
    ),
    "acknowledge": PageAction(
        operation="source.acknowledge",
        prepare=_acknowledge,
        args=_acknowledge_args,
        done=lambda _: "Acknowledged. It is in the audit log.",
        reason="reason",
    ),
    "dismiss": PageAction(
        operation="missing.dismiss",
        prepare=_dismiss,
        args=lambda asked, _: {"source": asked.get("source"), "keys": [asked.get("key", "")]},
        done=lambda _: "Dismissed. It is in the audit log.",
        reason="reason",
    ),
    "create-token": PageAction(
        operation="token.create", prepare=_new_token, args=_new_token_args, done=lambda _: "The token is made."
    ),
    "revoke-token": PageAction(
        operation="token.revoke",
        prepare=_revoke,
        args=lambda asked, _: {"name": asked.get("name")},
        done=told("revoked", "Revoked: {}."),
    ),
}
"""Every action of the pages, by the last part of its address."""
