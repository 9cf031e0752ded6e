"""Turns webhooks and listed events into rows, in one transaction.

Webhooks, lists and imports all use `Recorder.store`, so that identity, counting and routing are decided in one
place: by the result of the insert, never by a look-up before it. Locks are taken in one order
everywhere: lines (`ordering`), events by (source, key), missing, findings, deliveries, tallies, each sorted.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from operator import itemgetter

import msgspec
from sqlalchemy import Connection, delete, select, update

from gapless.domain import Cause, Owed, Route, Source, Via, to_us
from gapless.ledger import deliveries, feed, findings, missing, ordering, owing, restored, sealed, signed_messages
from gapless.ledger.deliveries import NOT_LISTED
from gapless.ledger.engine import dialect
from gapless.ledger.findings import OpenFinding, Recovered
from gapless.ledger.keyring import ring_of
from gapless.ledger.owing import NewDelivery
from gapless.ledger.signed_messages import Repetition
from gapless.ledger.tables import EVENT, ID_BLOCK, PAYLOAD
from gapless.ledger.tallies import Tallies
from gapless.sealing import Keyring
from gapless_reconcilers.kit.contract import RemoteEvent

StateKey = tuple[int, str | None, int | None]
"""(source id, object key, object version)."""
EventKey = tuple[int, str]
"""(source id, event key): the identity of an event."""

EVENT_COLUMNS = (
    "source_id", "key", "stream_id", "type", "object_key", "object_version", "occurred_us", "first_seen_us", "via",
    "expected", "missed_cause", "webhook_us", "webhook_count", "payload_id", "item", "livemode",
)  # fmt: skip
OCCURRED, EXPECTED, MISSED_CAUSE = map(EVENT_COLUMNS.index, ("occurred_us", "expected", "missed_cause"))
LATE_US = 60_000_000
"""A webhook that comes so long after its event is late: the vendor's queue is behind, or it was sent again."""
BEYOND = -1
"""Instead of the number of new events: nothing was recorded, because the signed message came with too many others."""
BY_VIA = {via: f"by_{via.value}" for via in Via}
PAYLOAD_COLUMNS = ("id", "body", "headers", "stored_us", "envelope_id")
SEALED_COLUMNS = (*PAYLOAD_COLUMNS, "sealed_by", "size")


class Sighting(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One event as a webhook, a list or an import showed it, with the data to store if it is new."""

    source: Source
    stream_id: int
    event: RemoteEvent
    via: Via
    seen_us: int
    body: bytes | None = None
    """The whole body of its webhook; None: it did not come by webhook."""
    item: int = 0
    headers: str | None = None
    digest: bytes | None = None
    """The digest of the signed message that it came with; None: the signature covers its identity, or there is none."""
    cause: Cause | None = None
    """The cause if it counts as missed; None if it came by webhook."""
    awaited_until_us: int | None = None
    """Its webhook may come until then without its being missed: it becomes a finding. None: its grace is over."""
    behind_watermark: bool = False
    restored: bool = False
    """True if it occurred in a time that a restored backup lacks: not expected, and its deliveries are held."""

    @property
    def identity(self) -> EventKey:
        """(source id, event key)."""
        return (self.source.id, self.event.key)

    @property
    def expected(self) -> bool:
        """True if our subscription should have pushed it, for all that we know."""
        return not self.restored and self.source.expects(self.event)

    @property
    def is_part(self) -> bool:
        """True if the webhook carried more than this event, so that its body cannot be delivered as the event."""
        return self.body is not None and self.event.payload != self.body


Webhook = tuple[Sighting, ...]
"""The events of one verified webhook, to be recorded whole or not at all."""


class Recorder:
    """Records events for one process: has its writer slot, its route and its reserved payload ids.

    `wake` is called inside a transaction that created deliveries; other replicas are notified when it commits.
    `withdraws`: the ids of the destinations whose handlers get each webhook themselves. What is pending for them is
    withdrawn in the transaction of the webhook.
    """

    def __init__(
        self,
        slot: int,
        route: Route,
        wake: Callable[[], None] = lambda: None,
        *,
        withdraws: Collection[int] = frozenset(),
        requires_listed: bool = False,
    ) -> None:
        self.slot = slot
        self.route = route
        self.withdraws = withdraws
        self.requires_listed = requires_listed
        """A destination takes what came by webhook only once the list has shown it."""
        self.wake = wake
        self.heard: dict[int, int] = {}
        """The time of the last webhook of each source to this process, by source id, in microseconds."""
        self.late: dict[int, int] = {}
        """When each source's last webhook came that was late, by source id, in microseconds."""
        self.recovered: dict[EventKey, Recovered] = {}
        """Events that were missed already when they were recorded; whoever counts them clears it."""
        self._payload_ids: list[int] = []
        self._last_payload_id = 0

    def record_webhooks(self, connection: Connection, webhooks: Sequence[Webhook]) -> list[int]:
        """Record a batch; return how many of each webhook's events were new.

        `BEYOND` for a webhook whose signed message has come with as many other events as are recorded of one.
        """
        new, beyond = self._store(connection, [sighting for webhook in webhooks for sighting in webhook])
        for webhook in webhooks:
            first = webhook[0]
            self.heard[first.source.id] = first.seen_us
            if first.seen_us - to_us(first.event.occurred_at) > LATE_US:
                self.late[first.source.id] = first.seen_us
        return [
            BEYOND
            if beyond and any(sighting.identity in beyond for sighting in webhook)
            else sum(new.pop(sighting.identity, None) is not None for sighting in webhook)
            for webhook in webhooks
        ]

    def store(self, connection: Connection, sightings: Sequence[Sighting]) -> dict[EventKey, int]:
        """Store the new events of `sightings` and count the known ones; return {identity: seq} of the new events."""
        return self._store(connection, sightings)[0]

    def _store(
        self, connection: Connection, sightings: Sequence[Sighting]
    ) -> tuple[dict[EventKey, int], Collection[EventKey]]:
        """Return the new events, and those that were not recorded because their message came with too many others."""
        first: dict[EventKey, Sighting] = {}
        for sighting in sightings:
            first.setdefault(sighting.identity, sighting)
        owed = {identity: self._owed(sighting) for identity, sighting in first.items()}
        lines = owing.lines_of(each for listed in owed.values() for each in listed)
        ordering.lock(connection, lines)
        payload_ids, shown = self._assign_payloads(connection, first), _note_states(connection, first)
        rows = {
            identity: _event_row(first[identity], payload_ids[identity], is_shown=identity in shown)
            for identity in (in_order_of_occurrence(first, owed) if lines else sorted(first))
        }
        new = dialect.insert_new(connection, EVENT, EVENT_COLUMNS, list(rows.values()), ("source_id", "key"))
        closed = missing.close(connection, new) if new else {}
        judged = _judge(connection, first, rows, new, closed)
        for identity, row in closed.items():
            _note_closed(connection, new[identity], first[identity], row)
        self.recovered |= _recovered(first, rows, new, closed)
        tallies = Tallies()
        for identity in new:
            is_late = identity in shown and shown[identity].is_late
            _count_new(tallies, first[identity], rows[identity], closed.get(identity), is_late=is_late)
        findings.add(connection, _awaited(first, rows, new.keys() - closed.keys()))
        came = [each.seq for each in shown.values() if each.is_first]
        if len(new) < len(sightings):
            came += _count_known(connection, sightings, first, new, tallies)
        if came and self.withdraws:
            deliveries.withdraw(connection, came, self.withdraws)
        bundle = dialect.Bundle(connection)
        self._store_payloads(connection, bundle, [(payload_ids[identity], first[identity]) for identity in new])
        listed = closed.keys() | shown.keys()
        self._owe(
            connection,
            bundle,
            [
                (
                    seq,
                    first[identity],
                    owed[identity],
                    _Listing(
                        is_listed=identity in listed,
                        is_awaited=identity in judged.repeated,
                        is_redelivered=identity in closed and _was_redelivered(first[identity], closed[identity]),
                    ),
                )
                for identity, seq in new.items()
            ],
        )
        tallies.write(bundle, self.slot)
        bundle.send()
        return new, judged.beyond

    def _assign_payloads(self, connection: Connection, first: dict[EventKey, Sighting]) -> dict[EventKey, int | None]:
        """Return a payload id per event; an imported event has none."""
        return {
            identity: None if sighting.via is Via.IMPORT else self._payload_id(connection)
            for identity, sighting in first.items()
        }

    def _payload_id(self, connection: Connection) -> int:
        if not self._payload_ids:
            block = dialect.reserve_block(connection, PAYLOAD, ID_BLOCK, self._last_payload_id)
            self._payload_ids, self._last_payload_id = list(reversed(block)), block[-1]
        return self._payload_ids.pop()

    def _store_payloads(
        self, connection: Connection, bundle: dialect.Bundle, stored: Sequence[tuple[int | None, Sighting]]
    ) -> None:
        """Store each event as received, and the body of a webhook that carried several once."""
        rows: list[StoredPayload] = []
        owners: list[tuple[int, str]] = []
        envelopes: dict[int, int] = {}
        for payload_id, sighting in stored:
            if payload_id is None:
                continue
            envelope_id, headers = None, sighting.headers
            if sighting.is_part:
                mark = id(sighting.body)
                if mark not in envelopes:
                    envelopes[mark] = self._payload_id(connection)
                    rows.append((envelopes[mark], sighting.body or b"", headers, sighting.seen_us, None))
                    owners.append((sighting.source.id, sealed.ENVELOPE))
                envelope_id, headers = envelopes[mark], None
            rows.append((payload_id, bytes(sighting.event.payload), headers, sighting.seen_us, envelope_id))
            owners.append(sighting.identity)
        ring = ring_of(connection)
        if not ring.is_used:
            bundle.insert_many(PAYLOAD, PAYLOAD_COLUMNS, rows)
            return
        whole = [_sealed(ring, row, owner) for row, owner in zip(rows, owners, strict=True)]
        bundle.insert_many(PAYLOAD, SEALED_COLUMNS, whole)

    def _owed(self, sighting: Sighting) -> list[Owed]:
        awaited_until_us = sighting.awaited_until_us or 0
        return self.route(sighting.source, sighting.event, sighting.via, sighting.seen_us, awaited_until_us)

    def _owe(
        self,
        connection: Connection,
        bundle: dialect.Bundle,
        new: Sequence[tuple[int, Sighting, Sequence[Owed], "_Listing"]],
    ) -> None:
        made = [
            NewDelivery(
                seq=seq,
                source_id=sighting.source.id,
                key=sighting.event.key,
                occurred_us=to_us(sighting.event.occurred_at),
                recorded_us=sighting.seen_us,
                is_recovered=sighting.via is Via.LIST or listing.is_redelivered,
                owed=each,
                state=state,
                reason=reason,
            )
            for seq, sighting, owed, listing in sorted(new, key=itemgetter(0))
            for each in owed
            for state, reason in [_state(sighting, listing, each)]
        ]
        if owing.add(connection, bundle, made):
            self.wake()


StoredPayload = tuple[int, bytes, str | None, int, int | None]
"""A row with `PAYLOAD_COLUMNS`."""


def _sealed(ring: Keyring, row: StoredPayload, owner: EventKey) -> tuple[object, ...]:
    """Return a row with `SEALED_COLUMNS`. Raises `CannotSeal`."""
    payload_id, body, headers, stored_us, envelope_id = row
    stored, kept, sealed_by = sealed.seal_payload(ring, payload_id, owner, body, headers)
    return (payload_id, stored, kept, stored_us, envelope_id, sealed_by, len(body) if sealed_by else None)


def in_order_of_occurrence(
    first: Mapping[EventKey, Sighting], owed: Mapping[EventKey, Sequence[Owed]]
) -> list[EventKey]:
    """Return the events of one transaction in the order in which they are recorded, where some have an order.

    Those come as they occurred, and of one time as they arrived: a list that shows the newest first, the other way
    round. The transaction holds the locks of their lines, so nobody records them at the same moment. All others come by
    their keys, so that two transactions lock them in one order.
    """
    arrival = {identity: place for place, identity in enumerate(first)}
    listed = [sighting.event.occurred_at for sighting in first.values() if sighting.via is Via.LIST]
    turn = -1 if listed and listed[0] > listed[-1] else 1
    free = [identity for identity in first if not owing.lines_of(owed[identity])]

    def place(identity: EventKey) -> tuple[datetime, int]:
        sighting = first[identity]
        return sighting.event.occurred_at, arrival[identity] * (turn if sighting.via is Via.LIST else 1)

    return sorted(free) + sorted(first.keys() - set(free), key=place)


class _Listing(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is known of a new event and the list."""

    is_listed: bool
    """The list has shown it, or its state, before its webhook came."""
    is_awaited: bool
    """It repeats a signed message, so the list must show it before it is delivered, where the list can."""
    is_redelivered: bool
    """We asked the provider to send it again."""


def _state(sighting: Sighting, listing: _Listing, owed: Owed) -> tuple[str, str | None]:
    """Return the state and the reason of a delivery of a new event.

    A condition that could not be judged comes first: what releases the others is no answer to it.
    """
    if owed.held is not None:
        return ("held", owed.held)
    if sighting.restored:
        return ("held", restored.REASON)
    if sighting.via is Via.WEBHOOK and not listing.is_listed:
        is_repeated = listing.is_awaited and sighting.source.lists_identity(sighting.event)
        if is_repeated or owed.until_listed:
            return ("held", NOT_LISTED)
    return ("pending", None)


def _judge(
    connection: Connection,
    first: Mapping[EventKey, Sighting],
    rows: dict[EventKey, dialect.Row],
    new: dict[EventKey, int],
    closed: Collection[EventKey],
) -> Repetition:
    """Mark the new events that repeat a signed message, and take back those that are too many.

    One that a list had shown before it came is what it says. A repeated event is not expected, so that it is no
    witness: that the list lacks it proves nothing against the list.
    """
    digests = {identity: digest for identity in new if (digest := first[identity].digest) is not None}
    if not digests:
        return Repetition()
    judged = signed_messages.judge(connection, digests)
    judged.repeated -= set(closed)
    judged.beyond -= set(closed)
    if judged.beyond:
        taken = [new.pop(identity) for identity in judged.beyond]
        connection.execute(delete(EVENT).where(EVENT.c.seq.in_(taken)))
    if judged.repeated:
        seqs = [new[identity] for identity in judged.repeated]
        connection.execute(update(EVENT).where(EVENT.c.seq.in_(seqs)).values(repeated=True, expected=False))
        for identity in judged.repeated:
            row = rows[identity]
            rows[identity] = (*row[:EXPECTED], False, *row[EXPECTED + 1 :])
    return judged


class ListedState(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The event of a state that a list showed before a webhook did, and what that webhook is to it."""

    seq: int
    is_first: bool
    """No webhook had brought the state before."""
    is_late: bool
    """It is the first one, and the state counts as missed."""


def _note_states(connection: Connection, first: Mapping[EventKey, Sighting]) -> dict[EventKey, ListedState]:
    """Note webhooks of states that a list showed first, in the events of those states; return these by the webhooks.

    The state is an event of its own already, so its webhook is not expected a second time.
    """
    pushed = {
        identity: (identity[0], sighting.event.object_key, sighting.event.object_version)
        for identity, sighting in first.items()
        if sighting.event.object_version is not None and sighting.via is Via.WEBHOOK
    }
    if not pushed:
        return {}
    listed = listed_states(connection, set(pushed.values()))
    return {
        identity: _note_state(connection, listed[state], first[identity].seen_us)
        for identity, state in pushed.items()
        if state in listed
    }


def _note_state(connection: Connection, seq: int, at_us: int) -> ListedState:
    none_yet = (EVENT.c.seq == seq, EVENT.c.webhook_us.is_(None))
    noted = update(EVENT).where(*none_yet).values(webhook_us=at_us).returning(EVENT.c.missed_cause)
    row = connection.execute(noted).first()
    return ListedState(seq=seq, is_first=row is not None, is_late=row is not None and row.missed_cause is not None)


def _event_row(sighting: Sighting, payload_id: int | None, *, is_shown: bool) -> tuple[object, ...]:
    event, pushed = sighting.event, sighting.via is Via.WEBHOOK
    expected = not is_shown and sighting.expected
    return (
        sighting.source.id,
        event.key,
        sighting.stream_id,
        event.type,
        event.object_key,
        event.object_version,
        to_us(event.occurred_at),
        sighting.seen_us,
        sighting.via.value,
        expected,
        sighting.cause.value if expected and sighting.cause and sighting.awaited_until_us is None else None,
        sighting.seen_us if pushed else None,
        int(pushed),
        payload_id,
        sighting.item,
        event.livemode,
    )


def _awaited(
    first: Mapping[EventKey, Sighting], rows: Mapping[EventKey, dialect.Row], identities: Collection[EventKey]
) -> list[OpenFinding]:
    """Return the findings among the new events `identities`: those expected, and listed before their grace is over."""
    return [
        OpenFinding(
            source_id=source_id,
            key=key,
            stream_id=first[source_id, key].stream_id,
            occurred_us=rows[source_id, key][OCCURRED],
            cause=first[source_id, key].cause or Cause.UNEXPLAINED,
        )
        for source_id, key in sorted(identities)
        if first[source_id, key].awaited_until_us is not None and rows[source_id, key][EXPECTED]
    ]


def _note_closed(connection: Connection, seq: int, sighting: Sighting, row: missing.Closed) -> None:
    """Note in the event what its missing row knew: whether it counts as missed, and whether it was sent for us."""
    values: dict[str, str | None] = {"missed_cause": None if row.missed is None else row.missed.value}
    if _was_redelivered(sighting, row):
        values["via"] = Via.REDELIVERY.value
    connection.execute(update(EVENT).where(EVENT.c.seq == seq).values(**values))


def _count_new(
    tallies: Tallies, sighting: Sighting, row: dialect.Row, was_missing: missing.Closed | None, *, is_late: bool
) -> None:
    """Count a new event once. One that closes a missing row was counted when that row was made, or will be judged."""
    is_redelivered = was_missing is not None and _was_redelivered(sighting, was_missing)
    names = [BY_VIA[Via.REDELIVERY if is_redelivered else sighting.via]]
    if was_missing is not None:
        if was_missing.missed is not None and not is_redelivered and sighting.via is Via.WEBHOOK:
            names.append("late")
    elif row[EXPECTED]:
        names.append("expected")
        if row[MISSED_CAUSE] is not None:
            names.append(f"missed_{row[MISSED_CAUSE]}")
    if is_late:
        names.append("late")
    if sighting.behind_watermark:
        names.append("behind_watermark")
    if sighting.source.is_of_other_mode(sighting.event.livemode):
        names.append("other_mode")
    tallies.add(sighting.source.id, row[OCCURRED], *names)


def _recovered(
    first: Mapping[EventKey, Sighting],
    rows: Mapping[EventKey, dialect.Row],
    identities: Collection[EventKey],
    closed: Mapping[EventKey, missing.Closed],
) -> dict[EventKey, Recovered]:
    """Return those of the new events `identities` that are missed, and that we found or asked for."""
    found: dict[EventKey, Recovered] = {}
    for identity in identities:
        sighting, row = first[identity], closed.get(identity)
        is_missed = rows[identity][MISSED_CAUSE] is not None if row is None else row.missed is not None
        is_redelivered = row is not None and _was_redelivered(sighting, row)
        if is_missed and (is_redelivered or sighting.via is Via.LIST):
            found[identity] = Recovered(
                via=Via.REDELIVERY if is_redelivered else Via.LIST,
                occurred_us=to_us(sighting.event.occurred_at) if row is None else row.occurred_us,
                recorded_us=sighting.seen_us,
            )
    return found


def _was_redelivered(sighting: Sighting, row: missing.Closed) -> bool:
    """Return True if the event came by a redelivery that we requested."""
    return row.redelivered and sighting.via is Via.WEBHOOK


def _count_known(
    connection: Connection,
    sightings: Sequence[Sighting],
    first: dict[EventKey, Sighting],
    new: dict[EventKey, int],
    tallies: Tallies,
) -> list[int]:
    """Count the webhooks of known events: the first one of a missed event is late, others are duplicates.

    Returns the seqs of the events that no webhook had brought before, and tells listeners of the others.
    """
    again: Counter[EventKey] = Counter(s.identity for s in sightings if s.via is Via.WEBHOOK)
    again.subtract(identity for identity in new if first[identity].via is Via.WEBHOOK)
    rows = [(*identity, times, first[identity].seen_us) for identity, times in sorted(again.items()) if times > 0]
    came: list[int] = []
    sent_again: list[int] = []
    for seq, source_id, occurred_us, missed_cause, total, times in dialect.note_webhooks(connection, rows):
        is_first = total == times
        if is_first:
            came.append(seq)
            if missed_cause is not None:
                tallies.add(source_id, occurred_us, "late")
        for _ in range(times - is_first):
            tallies.add(source_id, occurred_us, "duplicates")
        if times > is_first:
            sent_again.append(seq)
    feed.announce_again(connection, sent_again)
    return came


def listed_states(connection: Connection, states: Collection[StateKey]) -> dict[StateKey, int]:
    """Return those of `states` that a list showed first, with the seqs of their events."""
    found: dict[StateKey, int] = {}
    for source_id in {state[0] for state in states}:
        query = select(EVENT.c.object_key, EVENT.c.object_version, EVENT.c.seq).where(
            EVENT.c.source_id == source_id,
            EVENT.c.object_key.in_({name for other, name, _ in states if other == source_id}),
            EVENT.c.object_version.is_not(None),
            EVENT.c.via == Via.LIST.value,
        )
        for name, version, seq in connection.execute(query):
            if (state := (source_id, name, version)) in states:
                found[state] = seq
    return found
