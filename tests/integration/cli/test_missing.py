"""What is missing is listed, shown and dismissed from the command line."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from outside import Gapless
from sqlalchemy import Connection, insert

from gapless import masking
from gapless.domain import to_us
from gapless.ledger import sources, streams, unreadable
from gapless.ledger.engine import open_store
from gapless.ledger.tables import EVENT, PAYLOAD

pytestmark = pytest.mark.anyio
AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
ODD = b'{"id":"evt_\xff","created":null}'


def fill(connection: Connection) -> None:
    """A source with one row that cannot be read, and one event with a payload that JSON for people cannot show."""
    source_id = sources.register_source(connection, "stripe-live", "stripe", "hybrid", AT, AT)
    stream_id = streams.streams(connection, source_id)[0].id
    odd = unreadable.OddRow(
        source_id=source_id,
        stream_id=stream_id,
        key="unreadable:abc",
        row=ODD,
        problem="data[3].created is null; wanted int",
        occurred_us=to_us(AT),
        until_us=to_us(AT) + 5_000_000,
    )
    unreadable.set_aside(connection, [odd], to_us(AT))
    for number, body in enumerate((rb'{"note":"x\ud83d"}', b"[" * 5_000 + b"]" * 5_000, b'{"note":1e999}'), 1):
        connection.execute(insert(PAYLOAD).values(id=number, body=body, stored_us=0))
        of_event = {"source_id": source_id, "stream_id": stream_id, "type": "x", "occurred_us": 0, "first_seen_us": 0}
        connection.execute(insert(EVENT).values(key=f"evt_{number}", via="list", payload_id=number, **of_event))


@pytest.fixture
async def gapless(store_url: str, tmp_path: Path) -> Gapless:
    """A configuration, and a ledger that `fill` has filled."""
    store = open_store(store_url)
    await store.write(fill)
    await store.close()
    return Gapless(tmp_path, store_url, "http://127.0.0.1:9")


async def test_an_odd_row_is_listed_shown_and_dismissed(gapless: Gapless) -> None:
    gapless.source = "mask = []"
    code, out, err = await gapless.call("missing", "list")
    assert (code, "data[3].created is null" in out, "unreadable:abc" in out) == (0, True, True), err
    code, out, err = await gapless.call("missing", "show", "unreadable:abc")
    shown = json.loads(out)
    assert (shown["row"], shown["state"]) == (ODD.decode(errors="backslashreplace"), "open"), err
    assert (await gapless.call("missing", "show", "evt_1"))[0] == 1
    dismiss = ("missing", "dismiss", "unreadable:abc", "--source", "stripe-live", "--reason", "a test event")
    code, out, err = await gapless.call(*dismiss)
    assert (code, "dismissed: 1" in out) == (0, True), err
    assert "nothing is missing" in (await gapless.call("missing", "list"))[2]
    code, out, err = await gapless.call("missing", "list", "--all", "--json")
    assert json.loads(out)["state"] == "dismissed", err
    code, _, err = await gapless.call(*dismiss)
    assert (code, "has no open unreadable row 'unreadable:abc'" in err) == (2, True)


@pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
async def test_a_row_whose_masked_fields_cannot_be_found_is_hidden(gapless: Gapless) -> None:
    gapless.source = 'mask = ["/id"]'
    code, out, err = await gapless.call("missing", "show", "unreadable:abc")
    assert (code, json.loads(out)["row"]) == (0, json.dumps(masking.UNREADABLE)), err
    assert "evt_" not in out


async def test_an_event_with_an_odd_payload_is_shown(gapless: Gapless) -> None:
    gapless.source = "mask = []"
    for number, shown in enumerate((rb'{"note":"x\ud83d"}'.decode(), "[" * 5_000 + "]" * 5_000, '{"note":1e999}'), 1):
        code, out, err = await gapless.call("event", "show", f"evt_{number}")
        assert (code, "Traceback" in err) == (0, False), err
        assert json.loads(out)["payload"] == shown
