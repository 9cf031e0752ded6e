"""`gapless event`: list, show, fetch, follow, replay, send and accept events."""

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, BinaryIO

import click
import httpx
import msgspec

from gapless import masking
from gapless.bootstrap.sources import open_provider_client
from gapless.cli import output
from gapless.cli.access import operate, read_ledger
from gapless.cli.common import Exit, Invocation, failing_clearly, find_source, mask_of
from gapless.cli.param_types import TIME
from gapless.deliver.routing import takes_mode
from gapless.domain import Purpose, Via, from_us
from gapless.ledger import Connection, deliveries, events
from gapless.ledger.deliveries import DeliveryState, EventDelivery
from gapless.ledger.events import Event
from gapless.settings import DestinationSettings, Settings, build_provider, signing_secret
from gapless_reconcilers.kit.contract import (
    OWN_STREAM,
    CannotRender,
    FetchesDetail,
    MissingEvent,
    RecordedEvent,
    Remedy,
)

TAIL_EVERY_S = 1.0
TAIL_OVERLAP = 1000
"""Rows that are read again: on PostgreSQL a lower seq can become visible after a higher one."""


@click.group()
def event() -> None:
    """List, show, follow and replay recorded events."""


@event.command("list")
@click.option("--source")
@click.option("--via", type=click.Choice([via.value for via in Via]))
@click.option("--type", "event_type", help="An exact type, such as invoice.paid.")
@click.option("--missed", is_flag=True, help="Only events whose webhook did not come in time.")
@click.option("--unlisted", is_flag=True, help="Only webhooks that the provider's list does not show.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(invocation: Invocation, /, json_: bool, via: str | None, **filters: Any) -> None:  # noqa: FBT001 - click calls it
    """List the newest events.

    gapless event list --missed --source stripe-live
    """
    with failing_clearly(debug=invocation.debug):
        rows = read_ledger(invocation.settings(), events.recent, via=Via(via) if via else None, **filters)
        _show(rows, json_=json_)


@event.command("show")
@click.argument("key")
@click.option("--source")
@click.option("--payload", is_flag=True, help="Only the stored bytes, as received unless fields are masked.")
@click.pass_obj
def show_event(invocation: Invocation, key: str, source: str | None, payload: bool) -> None:  # noqa: FBT001 - click calls it
    """Show one event with its deliveries and its payload. Exit 1 if it is not in the ledger."""
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        found = read_ledger(settings, _with_payloads, key=key, source=source)
        if not found:
            click.echo(f"event {key!r} is not in the ledger", err=True)
            raise SystemExit(Exit.NEGATIVE)
        for row, received, deliveries_ in found:
            stored = None if received is None else masking.shown(received, mask_of(settings, row.source))
            if payload:
                output.as_bytes(stored or b"")
            else:
                shown = _deliveries(row, deliveries_, settings.destinations)
                output.as_json(_fields(row) | {"deliveries": shown, "payload": _readable(stored)})


@event.command()
@click.argument("key")
@click.option("--source", help="Needed if several sources have the key, or if it is not recorded yet.")
@click.pass_obj
def fetch(invocation: Invocation, key: str, source: str | None) -> None:
    """Fetch an event from its provider and print it; a thin event with its data. Records nothing.

    gapless event fetch evt_1… --source stripe-live
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        found = read_ledger(settings, events.by_key, key=key, source=source)
        if not found and source is None:
            raise click.UsageError(f"event {key!r} is not in the ledger; name its source with --source")
        if len({row.source for row in found}) > 1:
            raise click.UsageError(f"several sources have the event {key!r}; choose one with --source")
        row = found[0] if found else None
        name = row.source if row else str(source)
        payload = asyncio.run(_fetch(settings, name, _missing(key, row)))
        output.as_json(_readable(masking.shown(payload, mask_of(settings, name))))


def _missing(key: str, row: Event | None) -> MissingEvent:
    """Return the event to fetch; if it was never recorded, only its key is known."""
    if row is None:
        return MissingEvent(key=key, type="", occurred_at=datetime.now(UTC), stream=OWN_STREAM)
    return MissingEvent(key=key, type=row.type, occurred_at=from_us(row.occurred_us), stream=row.stream)


async def _fetch(settings: Settings, name: str, missing: MissingEvent) -> bytes:
    async with open_provider_client(find_source(settings, name), settings.public_url, os.environ) as client:
        provider = client.source.provider
        if not isinstance(provider, FetchesDetail):
            raise click.UsageError(f"provider {provider.kind!r} cannot fetch a single event")
        if provider.capabilities.remedy is not Remedy.LIST:
            raise click.UsageError(f"provider {provider.kind!r} finds an event only by its place in the list")
        response = await client.send(provider.detail_request(missing), Purpose.DETAIL)
        return bytes(provider.read_detail(missing, response).payload)


def _with_payloads(
    connection: Connection, key: str, source: str | None
) -> list[tuple[Event, bytes | None, list[EventDelivery]]]:
    rows = events.by_key(connection, key, source)
    payloads = [events.payload(connection, row.seq) for row in rows]
    return [
        (row, None if stored is None else stored[0], deliveries.of_event(connection, row.seq))
        for row, stored in zip(rows, payloads, strict=True)
    ]


def _deliveries(
    row: Event, made: Sequence[EventDelivery], configured: Sequence[DestinationSettings]
) -> list[dict[str, object]]:
    """Return the event's deliveries, and the destinations that are not owed it because it is of the other mode."""
    owed = [_owed(each) for each in made]
    others = [each for each in configured if each.name not in {one.destination for one in made}]
    return owed + [
        {"destination": each.name, "state": "not_owed", "reason": "other_mode"}
        for each in others
        if not takes_mode(None if each.modes is None else frozenset(each.modes), row.livemode, row.source_livemode)
    ]


def _owed(made: EventDelivery) -> dict[str, object]:
    return {
        "destination": made.destination,
        "state": made.state.value,
        "reason": made.reason,
        "attempts": made.attempts,
        "answered_at": None if made.answered_us is None else from_us(made.answered_us),
        "applied_at": None if made.applied_us is None else from_us(made.applied_us),
        "done_at": None if made.done_us is None else from_us(made.done_us),
        "in_order": made.is_ordered,
        "waits_for": _waits_for(made),
        "late": made.late,
    }


def _waits_for(made: EventDelivery) -> str | None:
    if made.state is not DeliveryState.WAITING:
        return None
    return "the provider's list to be complete" if made.is_unproven else "the event before it in its order"


def _readable(stored: bytes | None) -> object:
    """Return the payload as JSON, or as text if it has what JSON for people cannot show, such as a lone surrogate."""
    if stored is None:
        return None
    try:
        value = msgspec.json.decode(stored)
        msgspec.json.encode([value])  # what is printed is nested one level deeper
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return stored.decode(errors="backslashreplace")
    return value


@event.command()
@click.option("--source")
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def tail(invocation: Invocation, source: str | None, json_: bool) -> None:  # noqa: FBT001 - click calls it
    """Print events as they are recorded, until Ctrl-C.

    gapless event tail --source stripe-live
    """
    with failing_clearly(debug=invocation.debug):
        for row in _follow(invocation.settings(), source):
            if json_:
                output.as_lines([_fields(row)])
            else:
                click.echo("  ".join(map(output.cell_text, _cells(row))))


def _follow(settings: Settings, source: str | None) -> Iterator[Event]:
    newest = read_ledger(settings, events.recent, limit=TAIL_OVERLAP)
    seen, after = {row.seq for row in newest}, max((row.seq for row in newest), default=0)
    while True:
        overlap = max(0, after - TAIL_OVERLAP)
        found = read_ledger(settings, events.recent, after_seq=overlap, source=source, limit=2 * TAIL_OVERLAP)
        fresh = [row for row in found if row.seq not in seen]
        yield from fresh
        seen = {seq for seq in seen if seq > overlap} | {row.seq for row in fresh}
        after = max(seen, default=after)
        time.sleep(TAIL_EVERY_S)


@event.command()
@click.argument("keys", nargs=-1)
@click.option("--destination", required=True)
@click.option("--source")
@click.option("--since", type=TIME, help="Instead of keys: all events from this time on.")
@click.option("--until", type=TIME)
@click.option("--other-mode", is_flag=True, help="With --since: also events that are not of their source's own mode.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def replay(invocation: Invocation, /, keys: Sequence[str], destination: str, yes: bool, **filters: Any) -> None:  # noqa: FBT001
    """Send recorded events to a destination again, with the same ids, by key or by time.

    gapless event replay --source stripe-live --since 2h --destination billing
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        args = {"destination": destination, **filters, **({"keys": list(keys)} if keys else {})}
        plan = asyncio.run(operate(settings, "event.replay", {**args, "dry_run": True}))
        extent = f", first {plan['first']}, last {plan['last']}" if plan.get("first") else ""
        click.echo(f"{plan['count']} events{extent}")
        if not plan["count"] or not (yes or click.confirm(f"Send them to {destination}?")):
            raise SystemExit(Exit.NEGATIVE)
        result = asyncio.run(operate(settings, "event.replay", args))
        click.echo(f"{result['replayed']} events will be sent to {destination} again")
        if result["without_payload"]:
            click.echo(f"{result['without_payload']} no longer have a payload and cannot be sent")


@event.command("accept-unlisted")
@click.argument("source")
@click.argument("keys", nargs=-1, required=True)
@click.option("--reason", required=True, help="Why the list may lack them. The audit log keeps it.")
@click.pass_obj
def accept_unlisted(invocation: Invocation, source: str, keys: Sequence[str], reason: str) -> None:
    """Accept that the list of SOURCE lacks the events KEYS, which came by webhook: the watermark may pass them.

    gapless event accept-unlisted stripe-live evt_1… --reason "sent by the simulator"
    """
    with failing_clearly(debug=invocation.debug):
        args = {"source": source, "keys": list(keys), "reason": reason}
        done = asyncio.run(operate(invocation.settings(), "event.accept_unlisted", args))
        click.echo(f"accepted: {len(done['accepted'])} events; the next pass moves the watermark over them")


@event.command()
@click.argument("source")
@click.argument("file", type=click.File("rb"))
@click.option("--url", help="Default: the public listener on this machine.")
@click.pass_obj
def send(invocation: Invocation, source: str, file: BinaryIO, url: str | None) -> None:
    """Post the event in FILE ("-": stdin) to our own listener, signed as by the provider, to test your set-up.

    gapless event show evt_1… --payload | gapless event send stripe-live -
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        target = url or f"http://127.0.0.1:{settings.public.port}/webhooks/{source}"
        response = _send(settings, source, file.read(), target)
        click.echo(f"{response.status_code} {response.text}".strip())
        raise SystemExit(Exit.OK if response.is_success else Exit.NEGATIVE)


def _send(settings: Settings, name: str, body: bytes, target: str) -> httpx.Response:
    wanted = next((each for each in settings.sources if each.name == name), None)
    if wanted is None:
        raise click.BadParameter(f"source {name!r} is not configured", param_hint="SOURCE")
    first = signing_secret(wanted, os.environ)
    if first is None:
        raise click.UsageError(f"source {name!r} has no secret to sign webhooks with")
    now = datetime.now(UTC)
    recorded = RecordedEvent(key="", type="", occurred_at=now, stream="", payload=body, via=Via.WEBHOOK.value)
    message = build_provider(wanted, os.environ).render(recorded, target, first, now)
    if isinstance(message, CannotRender):
        raise click.UsageError(message.reason)
    try:
        return httpx.post(target, content=message.body, headers=dict(message.headers), timeout=30, trust_env=False)
    except httpx.HTTPError as error:
        raise ConnectionError(
            f"{target} does not answer ({error}); start `gapless serve`, or name another --url"
        ) from error


def _show(rows: Sequence[Event], *, json_: bool) -> None:
    if json_:
        output.as_lines(map(_fields, rows))
        return
    columns = ("occurred", "source", "stream", "type", "key", "via", "missed because", "webhooks")
    output.table(columns, map(_cells, rows), empty="no event matches")


def _cells(row: Event) -> tuple[object, ...]:
    stream, cause = row.stream or "-", row.missed_cause or "-"
    return (from_us(row.occurred_us), row.source, stream, row.type, row.key, row.via, cause, row.webhook_count)


def _fields(row: Event) -> dict[str, object]:
    times = {name.removesuffix("_us"): getattr(row, name) for name in ("occurred_us", "first_seen_us", "webhook_us")}
    plain = {name: value for name, value in asdict(row).items() if not name.endswith("_us")}
    return plain | {name: None if us is None else from_us(us) for name, us in times.items()}
