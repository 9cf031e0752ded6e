"""`gapless source pass --deliver`: owing to destinations what a pass behind the start has recorded."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import click

from gapless.cli import output
from gapless.cli.access import known_sources, open_operations, open_reader
from gapless.domain import ALL_TYPES, TypePatterns, from_us, to_us
from gapless.ledger import Connection, selection
from gapless.ledger.selection import Chosen, Undelivered
from gapless.settings import DestinationSettings, Settings

BATCH = 1000


@dataclass(slots=True, kw_only=True)
class Owing:
    """What one destination would be owed."""

    destination: str
    keys: list[str] = field(default_factory=list)
    first_us: int = 0
    last_us: int = 0

    def add(self, event: Undelivered) -> None:
        """Count it in."""
        self.first_us = min(self.first_us or event.occurred_us, event.occurred_us)
        self.last_us = max(self.last_us, event.occurred_us)
        self.keys.append(event.key)

    def __str__(self) -> str:
        if not self.keys:
            return f"{self.destination}: nothing that it was not owed before"
        first, last = (output.shown(from_us(us)) for us in (self.first_us, self.last_us))
        return f"{self.destination}: {len(self.keys)} events, first {first}, last {last}"


async def plan_deliveries(settings: Settings, source: str, since: datetime, until: datetime) -> list[Owing]:
    """For each destination of the source, the events in `[since, until)` that a list showed, and it was never owed."""
    chosen = Chosen(source=source, start_us=to_us(since), end_us=to_us(until))
    wanting = [each for each in settings.destinations if each.sources == ("*",) or source in each.sources]
    async with open_reader(settings) as store:
        types = await store.read(partial(_types_of, settings=settings, source=source))
        return [await store.read(partial(_plan, to=each, types=types, chosen=chosen)) for each in wanting]


def _types_of(connection: Connection, settings: Settings, source: str) -> TypePatterns:
    book = known_sources(settings, connection)
    return book[source].types if source in book else ALL_TYPES


def _plan(connection: Connection, to: DestinationSettings, types: TypePatterns, chosen: Chosen) -> Owing:
    owing, wanted = Owing(destination=to.name), TypePatterns(to.types)
    for event in _undelivered(connection, to.name, chosen):
        if event.type in wanted and event.type in types:
            owing.add(event)
    return owing


def _undelivered(connection: Connection, destination: str, chosen: Chosen) -> Iterator[Undelivered]:
    row = selection.destination(connection, destination)
    if row is None:
        raise click.UsageError(f"destination {destination!r} is not in the ledger yet; `gapless serve` makes it")
    after = 0
    while found := selection.undelivered(connection, chosen, row.id, after, BATCH):
        yield from found
        after = found[-1].seq


async def deliver(settings: Settings, source: str, plan: list[Owing]) -> int:
    """Owe it to them; returns how many deliveries came of it."""
    sent = 0
    async with open_operations(settings) as does:
        for owing in plan:
            for at in range(0, len(owing.keys), BATCH):
                keys = owing.keys[at : at + BATCH]
                args = {"destination": owing.destination, "source": source, "keys": keys}
                sent += (await does("event.replay", args))["replayed"]
    return sent
