"""Write down what is configured as rows of the ledger, and retire what is not configured any more."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from gapless.bootstrap.sources import make_source, mode_of, restore_subscription
from gapless.domain import Source, align_down, from_us
from gapless.ledger import Connection, dead_letters, destinations, sources, subscriptions
from gapless.ledger.engine import Store
from gapless.settings import Settings, build_provider

WHOLE_SECOND = timedelta(seconds=1)
"""Vendors stamp events no finer, so what occurs in the second of a first start is owed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredRows:
    """The rows of what is configured. `destinations` is {name: (id, since in microseconds)}."""

    sources: tuple[Source, ...]
    destinations: Mapping[str, tuple[int, int]]
    retired: Mapping[str, int]


async def register_rows(settings: Settings, environ: Mapping[str, str], store: Store, now: datetime) -> RegisteredRows:
    """Make or find the rows of every configured source and destination, and retire what is gone.

    The process does not run yet, so this is its only use of the store that is not through the writer.
    """
    providers = {each.name: build_provider(each, environ) for each in settings.sources}

    def work(connection: Connection) -> RegisteredRows:
        known = []
        for each in settings.sources:
            start = align_down(each.start or now, providers[each.name].capabilities.resolution)
            mode = mode_of(each, providers[each.name])
            source_id = sources.register_source(connection, each.name, each.provider, mode.value, start, now)
            row = sources.source_row(connection, source_id)
            source = make_source(each, providers[each.name], source_id, from_us(row["start_us"]))
            known.append(restore_subscription(source, subscriptions.subscriptions(connection, source_id)))
        sources.retire_absent(connection, [each.name for each in settings.sources], now)
        _park_what_is_retired(connection)
        destination_rows = {}
        for wanted in settings.destinations:
            since = align_down(wanted.since or now, WHOLE_SECOND)
            row_id = destinations.register_destination(connection, wanted.name, since)
            destination_rows[wanted.name] = (row_id, destinations.destination_since(connection, row_id))
        destinations.retire_absent_destinations(connection, [each.name for each in settings.destinations])
        retired = sources.retired_since(connection)
        return RegisteredRows(sources=tuple(known), destinations=destination_rows, retired=retired)

    return await store.write(work)


def _park_what_is_retired(connection: Connection) -> None:
    """Park what retired sources still owe, and let go what those owe that are back."""
    for state, move in (("retired", dead_letters.park_source), ("active", dead_letters.unpark_source)):
        for source_id in sources.ids_in_state(connection, state):
            while move(connection, source_id):
                pass
