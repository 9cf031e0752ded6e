"""`gapless event`: list, show, fetch, follow, replay, send and accept events."""

import asyncio
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, BinaryIO

import click
import httpx

from gapless import masking
from gapless.bootstrap.sources import open_provider_client
from gapless.cli import output
from gapless.cli.access import operate, read_ledger
from gapless.cli.common import Exit, Invocation, failing_clearly, find_source, job_text, mask_of
from gapless.cli.event_deliveries import event_deliveries
from gapless.cli.param_types import TIME
from gapless.domain import EventMode, Purpose, Via, from_us, to_us
from gapless.ledger import Connection, deliveries, event_search, events, feed
from gapless.ledger.attempts import AttemptDetails
from gapless.ledger.deliveries import DeliveryState, EventDelivery
from gapless.ledger.event_search import BOTH, OWED_TO_NOBODY, EventSearch
from gapless.ledger.events import Event
from gapless.ledger.feed import NOTHING_KNOWN, Settled
from gapless.operations import attempts
from gapless.sealing import CannotOpen
from gapless.settings import Settings, build_provider, signing_secret
from gapless_reconcilers.kit.contract import (
    OWN_STREAM,
    CannotRender,
    FetchesDetail,
    MissingEvent,
    RecordedEvent,
    Remedy,
)

ANSWER_SHOWN = 60
"""Characters of an answer's body in a table."""
FOUND_AT_ONCE = 500
"""Most events that one search returns."""
TAIL_EVERY_S = 1.0
TAIL_SOON_S = 0.05
TAIL_PAGE = 1000


@click.group()
def event() -> None:
    """List, show, follow and replay recorded events."""


@event.command("list")
@click.option("--source")
@click.option("--via", type=click.Choice([*(via.value for via in Via), BOTH]))
@click.option("--type", "types", multiple=True, help="invoice.paid, or all that begin so: invoice.*; repeat it.")
@click.option("--prefix", help="The beginning of the event's key.")
@click.option("--object", "object_key", help="The key of the object, such as in_1…")
@click.option(
    "--state", type=click.Choice([*map(str, DeliveryState), OWED_TO_NOBODY]), help="Of one of its deliveries."
)
@click.option("--mode", type=click.Choice([mode.value for mode in EventMode]), help="Where the vendor has modes.")
@click.option("--since", type=TIME, help="What occurred from then on: 24h, 2026-01-31, …")
@click.option("--until", type=TIME, help="What occurred before.")
@click.option("--missed", is_flag=True, help="Only events whose webhook did not come in time.")
@click.option("--unlisted", is_flag=True, help="Only webhooks that the provider's list does not show.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "json_", is_flag=True, help="One JSON document a line.")
@click.pass_obj
def list_(invocation: Invocation, /, json_: bool, limit: int, unlisted: bool, **asked: Any) -> None:  # noqa: FBT001 - click calls it
    """List the newest events, by the time at which they occurred.

    gapless event list --type 'invoice.*' --since 24h --source stripe-live
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        if unlisted:
            rows = read_ledger(settings, events.recent, source=asked["source"], unlisted=True, limit=limit)
        else:
            rows = read_ledger(settings, _found, wanted=_wanted(**asked), limit=limit)
        _show(rows, json_=json_)


def _wanted(
    *,
    source: str | None,
    types: Sequence[str],
    mode: str | None,
    since: datetime | None,
    until: datetime | None,
    **others: Any,
) -> EventSearch:
    """Return what the options ask for."""
    return EventSearch(
        sources=None if source is None else frozenset({source}),
        types=tuple(types) or None,
        livemode=None if mode is None else mode == EventMode.LIVE,
        start_us=None if since is None else to_us(since),
        end_us=None if until is None else to_us(until),
        **others,
    )


def _found(connection: Connection, wanted: EventSearch, limit: int) -> list[Event]:
    """Return the events that fit, the newest first."""
    found: list[Event] = []
    after: tuple[int, ...] | None = None
    while len(found) < limit:
        page = event_search.search(connection, wanted, after=after, limit=min(FOUND_AT_ONCE, limit - len(found)))
        found += page.rows
        after = page.after
        if after is None:
            break
    return found


@event.command("show")
@click.argument("key")
@click.option("--source")
@click.option("--payload", is_flag=True, help="Only the stored bytes, as received unless fields are masked.")
@click.pass_obj
def show_event(invocation: Invocation, key: str, source: str | None, payload: bool) -> None:  # noqa: FBT001 - click calls it
    """Show one event with its deliveries and its payload. Exit 1 if it is not in the ledger."""
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        found = read_ledger(settings, _with_deliveries, key=key, source=source)
        if not found:
            click.echo(f"event {key!r} is not in the ledger", err=True)
            raise SystemExit(Exit.NEGATIVE)
        for row, received, tried, deliveries_ in found:
            if payload and isinstance(received, CannotOpen):
                raise received
            mask, content = mask_of(settings, row.source), received if isinstance(received, bytes) else None
            stored = _shown(received, settings, row.source)
            if payload:
                output.as_bytes(stored or b"")
            else:
                shown = event_deliveries(row, deliveries_, settings.destinations, content)
                tries = [attempts.as_values(each, received, mask) for each in tried]
                output.as_json(_fields(row) | {"deliveries": shown, "attempts": tries, "payload": _for_people(stored)})


@event.command("attempts")
@click.argument("key")
@click.option("--source", help="Needed if several sources have the key.")
@click.option("--destination", help="Only those to this destination.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 10_000))
@click.option("--json", "json_", is_flag=True, help="One JSON document a line, with headers and body of each answer.")
@click.pass_obj
def list_attempts(
    invocation: Invocation, key: str, source: str | None, destination: str | None, *, limit: int, json_: bool
) -> None:
    """List the attempts to deliver the event KEY, oldest first: what each destination answered, and how soon.

    gapless event attempts evt_1… --json
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        found = read_ledger(settings, attempts.of_key, key, source, destination=destination, limit=limit)
        if not found:
            click.echo(f"event {key!r} is not in the ledger", err=True)
            raise SystemExit(Exit.NEGATIVE)
        rows = [
            attempts.as_values(row, payload, mask_of(settings, row.source))
            for _, payload, tried in found
            for row in tried
        ]
        if json_:
            output.as_lines(rows)
            return
        columns = ("at", "source", "destination", "outcome", "took s", "detail", "answer")
        output.table(columns, map(_attempt_cells, rows), empty="nothing was tried yet, or its attempts are pruned")


def _attempt_cells(row: Mapping[str, Any]) -> tuple[object, ...]:
    body = " ".join((row["answer"] or {}).get("body", "").split())
    shown = body if len(body) <= ANSWER_SHOWN else f"{body[:ANSWER_SHOWN]}…"
    took = f"{row['duration_s']:.3f}"
    return (row["at"], row["source"], row["destination"], row["outcome"], took, row["detail"] or "-", shown or "-")


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
        output.as_json(_for_people(masking.shown(payload, mask_of(settings, name))))


def _shown(received: bytes | CannotOpen | None, settings: Settings, source: str) -> bytes | None:
    """Return what is shown of a payload."""
    if isinstance(received, CannotOpen):
        return f"not shown: {received}".encode()
    return None if received is None else masking.shown(received, mask_of(settings, source))


def _missing(key: str, row: Event | None) -> MissingEvent:
    """Return the event to fetch; if it was never recorded, only its key is known."""
    if row is None:
        return MissingEvent(key=key, type="", occurred_at=datetime.now(UTC), stream=OWN_STREAM)
    return MissingEvent(key=key, type=row.type, occurred_at=from_us(row.occurred_us), stream=row.stream)


def _for_people(body: bytes | None) -> object:
    value, text = (None, None) if body is None else masking.readable(body)
    return value if text is None else text


async def _fetch(settings: Settings, name: str, missing: MissingEvent) -> bytes:
    async with open_provider_client(find_source(settings, name), settings.public_url, os.environ) as client:
        provider = client.source.provider
        if not isinstance(provider, FetchesDetail):
            raise click.UsageError(f"provider {provider.kind!r} cannot fetch a single event")
        if provider.capabilities.remedy is not Remedy.LIST:
            raise click.UsageError(f"provider {provider.kind!r} finds an event only by its place in the list")
        response = await client.send(provider.detail_request(missing), Purpose.DETAIL)
        return bytes(provider.read_detail(missing, response).payload)


def _with_deliveries(
    connection: Connection, key: str, source: str | None
) -> list[tuple[Event, bytes | CannotOpen | None, list[AttemptDetails], list[EventDelivery]]]:
    return [(*each, deliveries.of_event(connection, each[0].seq)) for each in attempts.of_key(connection, key, source)]


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
    """Yield the events that are recorded from now on; what may still be preceded by others waits for them."""
    known, after = NOTHING_KNOWN, None
    while True:
        known, after, rows = read_ledger(settings, _next, known, after, source)
        yield from rows
        if len(rows) < TAIL_PAGE:
            time.sleep(TAIL_SOON_S if known.writers else TAIL_EVERY_S)


def _next(
    connection: Connection, before: Settled, after: int | None, source: str | None
) -> tuple[Settled, int | None, list[Event]]:
    known = feed.settled(connection, before)
    if known.seq is None or after is None:
        return known, known.seq, []
    rows = events.recent(connection, after_seq=after, up_to_seq=known.seq, source=source, limit=TAIL_PAGE)
    return known, rows[-1].seq if len(rows) == TAIL_PAGE else known.seq, rows


@event.command()
@click.argument("keys", nargs=-1)
@click.option("--destination", required=True)
@click.option("--source")
@click.option("--since", type=TIME, help="Instead of keys: all events from this time on.")
@click.option("--until", type=TIME)
@click.option("--type", "types", multiple=True, help="With --since: only these types, such as invoice.*")
@click.option("--missed", is_flag=True, help="With --since: only events that were missed.")
@click.option("--object", "object_", help="With --since: only events about this object, such as cus_1…")
@click.option("--other-mode", is_flag=True, help="With --since: also events that are not of their source's own mode.")
@click.option("--rate", type=click.FloatRange(0.1, 10_000), help="Events a second. Default: as they are taken.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("--note", help="Why, for the audit log.")
@click.pass_obj
def replay(
    invocation: Invocation,
    /,
    *,
    keys: Sequence[str],
    destination: str,
    types: Sequence[str],
    object_: str | None,
    dry_run: bool,
    yes: bool,
    **filters: Any,
) -> None:
    """Send recorded events to a destination again, with the same ids, by key or by time.

    More than 1,000 are sent by a job, so that new events do not wait for them: see `gapless job`.

    gapless event replay --source stripe-live --since 2h --destination billing
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        named = {"keys": list(keys) or None, "types": list(types) or None, "object": object_}
        args = {"destination": destination, **filters, **{name: each for name, each in named.items() if each}}
        plan = asyncio.run(operate(settings, "event.replay", {**args, "dry_run": True}))
        extent = f", first {plan['first']}, last {plan['last']}" if plan.get("first") else ""
        click.echo(f"{plan['count']} events{extent}")
        if dry_run:
            return
        if not plan["count"] or not (yes or click.confirm(f"Send them to {destination}?")):
            raise SystemExit(Exit.NEGATIVE)
        result = asyncio.run(operate(settings, "event.replay", args))
        if "job" in result:
            click.echo(job_text(result))
            return
        click.echo(f"{result['replayed']} events will be sent to {destination} again")
        if result["without_payload"]:
            click.echo(f"{result['without_payload']} no longer have a payload and cannot be sent")


@event.command()
@click.argument("keys", nargs=-1)
@click.option("--source", help="Only of this source.")
@click.option("--object", "object_", help="Instead of keys: every event of this object.")
@click.option("--pointer", help="Instead of keys: every event with VALUE at this JSON pointer of its payload.")
@click.option("--value", help='The value there; "-" reads it from stdin, so that no list of processes shows it.')
@click.option("--reason", required=True, help="Why. The audit log keeps it: do not repeat the value here.")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@click.pass_obj
def erase(
    invocation: Invocation,
    /,
    keys: Sequence[str],
    object_: str | None,
    value: str | None,
    yes: bool,  # noqa: FBT001 - click calls it
    **more: Any,
) -> None:
    """Erase the payloads of events for good, and what was kept of them elsewhere in the ledger.

    Their keys, types and times stay, because they prove that nothing is missing. What is owed of them is not sent.

    gapless event erase --pointer /data/object/customer --value cus_1… --reason "request 12"
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        value = sys.stdin.readline().rstrip("\n") if value == "-" else value
        args = {"keys": list(keys) or None, "object": object_, "value": value, **more}
        plan = asyncio.run(operate(settings, "event.erase", {**args, "dry_run": True}))
        for line in _plan_of_erasure(plan):
            click.echo(line)
        count = plan["events"] + plan["refused"] + plan["rows"]
        if not count or not (yes or click.confirm("Erase them? It cannot be undone.")):
            raise SystemExit(Exit.NEGATIVE)
        done = asyncio.run(operate(settings, "event.erase", args))
        click.echo(
            f"erased: {done['payloads']} payloads of {done['events']} events, {done['attempts']} texts of attempts, "
            f"{done['refused']} refused webhooks, {done['rows']} unreadable rows; {done['deliveries']} deliveries died"
        )


def _plan_of_erasure(plan: Mapping[str, int]) -> Iterator[str]:
    yield f"{plan['events']} events, {plan['refused']} refused webhooks, {plan['rows']} rows that cannot be read"
    if plan["before"]:
        yield f"{plan['before']} events were erased before"
    if plan["unknown"]:
        yield f"{plan['unknown']} keys are not in the ledger: erase them once they are recorded"
    if plan["unopened"]:
        yield f"{plan['unopened']} could not be looked into: no JSON, or sealed with a key that is not there"


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
    stored = ("occurred_us", "first_seen_us", "webhook_us", "erased_us")
    times = {name.removesuffix("_us"): getattr(row, name) for name in stored}
    plain = {name: value for name, value in asdict(row).items() if not name.endswith("_us")}
    return plain | {name: None if us is None else from_us(us) for name, us in times.items()}
