"""Makes a statement: lists the provider afresh, then reads the ledger and the team's ids, then compares event by event.

Each part goes into a worksheet on disk, so that a month of a million events needs no more memory than a page.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial

from gapless.domain import Purpose, Source, from_us, to_us
from gapless.ledger import audited
from gapless.ledger.audited import AuditedSource
from gapless.ledger.engine import Store, dialect
from gapless.ledger.worksheet import ListedRow, RecordedRow, Worksheet
from gapless.money import MoneyPointers, read_money
from gapless.operations.audit import SLACK, AuditReport, plan_report, typed_source
from gapless.operations.statement import Compared, FoundFault, Statement
from gapless.provider_api.client import ProviderClient
from gapless.provider_api.health import ProviderHealth, read_health, stream_names
from gapless.provider_api.pages import walk_pages
from gapless.reconcile.page_recorder import state_of
from gapless.text import format_span
from gapless_reconcilers.kit.contract import (
    OWN_STREAM,
    Capabilities,
    ConsumesEvents,
    Coverage,
    ListsEvents,
    Page,
    RemoteEvent,
)

Ids = AsyncIterator[list[str]]


@dataclass(frozen=True, kw_only=True)
class AuditRequest:
    """What is to be audited, and with what it is compared. `store`, `own_ids` None: there is nothing of that kind."""

    capabilities: Capabilities
    webhook_url: str
    since: datetime
    until: datetime | None
    now: datetime
    types: Sequence[str] = ()
    pointers: Sequence[MoneyPointers] = ()
    store: Store | None = None
    own_ids: Ids | None = None
    progress: Callable[[str], None] = lambda _: None


async def gather(client: ProviderClient, request: AuditRequest, sheet: Worksheet) -> Statement:
    """Fill the worksheet, and return the statement without its events: `conclude` adds those.

    Raises `ProviderError`s and `StoreError`s.
    """
    health = await read_health(client, request.webhook_url)
    source = typed_source(client.source, health.subscription, request.types, request.now)
    report = plan_report(source, request.capabilities, request.since, request.until, request.now - client.behind)
    has_list = _lists(client, request.capabilities)
    facts = None if request.store is None else await request.store.read(audited.facts, name=source.name)
    statement = _begin(source, request, report, health, facts, has_list=has_list)
    if report.window.start < report.window.end:
        if has_list:
            await _list(client, request, report, facts, sheet, statement)
        if facts is not None:
            await _record(request, report, facts, sheet, statement)
    else:
        statement.unknowns.append("nothing of the requested time can be listed")
    if request.own_ids is not None:
        async for keys in request.own_ids:
            sheet.add_own(keys)
    return statement


def conclude(statement: Statement, sheet: Worksheet) -> Iterator[FoundFault]:
    """Yield every fault of the worksheet, in the order of keys, and complete the statement at the end."""
    for row in sheet.rows():
        yield from statement.add(row)
    if statement.compared.table:
        statement.strangers = sheet.count_strangers()
    statement.conclude()


def _lists(client: ProviderClient, capabilities: Capabilities) -> bool:
    provider = client.source.provider
    is_list = isinstance(provider, ListsEvents) and not isinstance(provider, ConsumesEvents)
    return is_list and capabilities.coverage is not Coverage.NONE


def _begin(
    source: Source,
    request: AuditRequest,
    report: AuditReport,
    health: ProviderHealth,
    facts: AuditedSource | None,
    *,
    has_list: bool,
) -> Statement:
    account = None if health.account is None else health.account.fingerprint
    statement = Statement(
        source=source.name,
        start=report.window.start,
        end=report.window.end,
        made_at=request.now,
        types=report.types.patterns,
        types_origin=report.types_origin,
        account=account,
        compared=Compared(
            listed=has_list,
            ledger=facts is not None,
            table=request.own_ids is not None,
            start_us=None if facts is None else facts.start_us,
        ),
    )
    if not has_list:
        statement.unknowns.append(f"provider {source.provider.kind!r} has no list that can be read again")
    if report.unaudited is not None:
        forgotten = format_span(report.unaudited)
        statement.unknowns.append(f"the provider no longer lists the first {forgotten} of the requested time")
    if request.until is not None and request.until - report.window.end > SLACK:
        statement.unknowns.append("the last part of the requested time cannot be listed yet")
    if request.store is not None and facts is None:
        statement.unknowns.append("the ledger does not know the source")
    if facts is not None and facts.account is not None and account != facts.account:
        statement.unknowns.append(
            f"the key reads the account {account or 'unknown'}, and the ledger has events of {facts.account}"
        )
    if request.capabilities.coverage is Coverage.RESOURCE_STATE:
        statement.limits.append("the list shows the last state of each object: earlier states cannot be proven")
    if request.capabilities.coverage is Coverage.DELIVERY_LOG:
        statement.limits.append("the list shows what the provider tried to deliver, while the hook was active")
    return statement


async def _list(
    client: ProviderClient,
    request: AuditRequest,
    report: AuditReport,
    facts: AuditedSource | None,
    sheet: Worksheet,
    statement: Statement,
) -> None:
    listed, unreadable = 0, set[str]()
    for stream in (OWN_STREAM, *await stream_names(client)):
        async with walk_pages(client.spending(Purpose.URGENT), stream, report.window) as pages:
            async for page in pages:
                unreadable.update(row.digest for row in page.unreadable)
                events = _audited(page, report)
                fresh = sheet.add_listed(_listed_row(event, request.pointers) for event in events)
                statement.repeated += len(events) - fresh
                listed += fresh
                if facts is not None and request.capabilities.coverage is Coverage.RESOURCE_STATE:
                    await _add_states(request, facts, events, sheet)
                request.progress(f"{listed} listed")
    statement.unreadable = len(unreadable)


def _audited(page: Page, report: AuditReport) -> list[RemoteEvent]:
    window = report.window
    return [
        event
        for event in page.events
        if event.listable and event.type in report.types and window.start <= event.occurred_at < window.end
    ]


def _listed_row(event: RemoteEvent, pointers: Sequence[MoneyPointers]) -> ListedRow:
    money = read_money(pointers, event.type, bytes(event.payload))
    named = (None, None, None) if money is None else (format(money.amount, "f"), money.currency, money.unit.value)
    return ListedRow(event.key, event.type, to_us(event.occurred_at), *named)


async def _add_states(
    request: AuditRequest, facts: AuditedSource, events: Sequence[RemoteEvent], sheet: Worksheet
) -> None:
    """Add those listed states that the ledger has at that version or later, under whatever key."""
    if request.store is None or not events:
        return
    listed = {event.key: state_of(event) for event in events}
    look_up = partial(dialect.look_up_states, source_id=facts.id, listed=listed, before_us=0)
    known = await request.store.read(look_up)
    sheet.add_recorded(
        RecordedRow(event.key, event.type, to_us(event.occurred_at), True, False, "", "")  # noqa: FBT003
        for event in events
        if event.key in known
    )


async def _record(
    request: AuditRequest, report: AuditReport, facts: AuditedSource, sheet: Worksheet, statement: Statement
) -> None:
    """Add what the ledger has of the window, and whatever else it has of the listed events."""
    store = request.store
    if store is None:
        return
    start_us, end_us = to_us(report.window.start), to_us(report.window.end)
    proves_events = request.capabilities.coverage is not Coverage.RESOURCE_STATE
    recorded = 0
    for stream_id in facts.stream_ids:
        after: audited.Place | None = None
        while True:
            rows, after = await store.read(
                audited.page, source=facts, stream_id=stream_id, start_us=start_us, end_us=end_us, after=after
            )
            if after is None:
                break
            sheet.add_recorded(
                row if proves_events else row._replace(is_provable=False) for row in rows if row.type in report.types
            )
            recorded += len(rows)
            request.progress(f"{recorded} recorded")
    for keys in sheet.unrecorded():
        sheet.add_recorded(await store.read(audited.by_keys, source=facts, keys=keys))
    lost = await store.read(audited.lost_times, source_id=facts.id, start_us=to_us(request.since), end_us=end_us)
    statement.lost_times += [
        {
            **{name: value for name, value in asdict(each).items() if not name.endswith("_us")},
            "start": from_us(each.start_us),
            "end": from_us(each.end_us),
        }
        for each in lost
    ]
