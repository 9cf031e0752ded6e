"""Who may do what at the private listener: named tokens, their roles and limits, wrong ones, proxies, and the log."""

import asyncio
import logging
from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from typing import Any

import pytest
from sqlalchemy import select

from gapless.client_address import TrustedProxies
from gapless.console.auth import Access
from gapless.daemon import maintenance
from gapless.domain import Via, to_us
from gapless.ledger import audit_log, passes
from gapless.ledger.audit_log import AuditKey
from gapless.ledger.audit_proof import verify
from gapless.ledger.tables import TOKEN
from gapless.operations.context import OperationForbidden, OperationRefused
from gapless.operations.principals import AccessRole, Principal
from gapless.operations.registry import perform
from gapless.settings import RetentionSettings, SecretUnavailable
from gapless_reconcilers.kit.contract import Secret

pytestmark = pytest.mark.anyio
RUN = {"authorization": "Bearer run-token-of-this-process"}
ANN = RUN | {"x-gapless-actor": "ann"}
WIDE = Access(bind="10.0.0.5", run_token=Secret("run-token-of-this-process"), token=lambda: Secret("a-long-token-0123"))
WRONG_FROM = (ip_network("127.0.0.0/8"),)
WRONG = {"authorization": "Bearer a-wrong-token"}
on_sqlite = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
"""For what is decided without the store."""
AREAS = (
    ("GET", "/metrics"),
    ("GET", "/api/status"),
    ("POST", "/api/operations/pass.status"),
    ("POST", "/api/v1/receipts"),
)


async def make_token(console: Any, name: str, role: str, **changes: Any) -> dict[str, str]:
    """Make a token; return the header that carries it."""
    args = {"name": name, "role": role, "expires": None, **changes}
    made = await perform(console.context, "token.create", args)
    return {"authorization": f"Bearer {made['token']}"}


async def log(console: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = await console.context.read(audit_log.rows)
    return rows


async def statuses(client: Any, headers: dict[str, str]) -> list[int]:
    """The answer in each area."""
    bodies = {"/api/operations/pass.status": {"ids": []}}
    receipts = {"destination": "shop", "source": "acme", "keys": ["evt_1"]}
    found = []
    for method, path in AREAS:
        body = None if method == "GET" else bodies.get(path, receipts)
        found.append((await client.request(method, path, json=body, headers=headers)).status_code)
    return found


@on_sqlite
async def test_a_token_opens_what_its_role_opens(console: Any, listen: Any) -> None:
    await console.add_destination("shop")
    closed_metrics = replace(WIDE, metrics_token=lambda: Secret("the-metrics-token"))
    async with listen(access=closed_metrics) as client:
        assert await statuses(client, {}) == [401, 401, 401, 401]
        assert await statuses(client, await make_token(console, "see", "viewer")) == [200, 200, 403, 403]
        assert await statuses(client, await make_token(console, "act", "operator")) == [200, 200, 200, 200]
        assert await statuses(client, await make_token(console, "scrape", "metrics")) == [200, 403, 403, 403]
        handler = await make_token(console, "handler", "consumer", destinations=["shop"])
        assert await statuses(client, handler) == [403, 403, 403, 200]


async def test_only_the_digest_of_a_token_is_kept(console: Any) -> None:
    made = await perform(console.context, "token.create", {"name": "see", "role": "viewer", "expires": None})
    token = str(made["token"])
    assert len(token) >= 43
    (row,) = await console.context.read(lambda c: [dict(each) for each in c.execute(select(TOKEN)).mappings()])
    assert token not in str(row) + str(await log(console))
    assert row["digest"] != token


async def test_a_revoked_or_expired_token_opens_nothing_from_then_on(console: Any, listen: Any) -> None:
    until = console.now[0] + timedelta(hours=1)
    async with listen(access=WIDE) as client:
        gone = await make_token(console, "gone", "operator")
        short = await make_token(console, "short", "operator", expires=until.isoformat())
        for headers in (gone, short):
            assert (await client.get("/api/status", headers=headers)).status_code == 200
        await perform(console.context, "token.revoke", {"name": "gone"})
        console.now[0] = until
        for headers, why in ((gone, "gone was revoked"), (short, "short has expired")):
            refused = await client.get("/api/status", headers=headers)
            assert (refused.status_code, why in refused.json()["error"]) == (401, True)
    with pytest.raises(OperationRefused, match="a name is given once"):
        await make_token(console, "gone", "viewer")
    with pytest.raises(OperationRefused, match="no token 'gone' that could be revoked; there are: short"):
        await perform(console.context, "token.revoke", {"name": "gone"})


@on_sqlite
async def test_a_token_makes_no_token(console: Any, listen: Any) -> None:
    body = {"name": "more", "role": "operator", "expires": None}
    async with listen(access=WIDE) as client:
        for headers in (await make_token(console, "act", "operator"), {"authorization": "Bearer a-long-token-0123"}):
            refused = await client.post("/api/operations/token.create", json=body, headers=headers)
            assert (refused.status_code, "needs owner" in refused.json()["error"]) == (403, True)
        assert (await client.post("/api/operations/token.create", json=body, headers=RUN)).status_code == 200


@on_sqlite
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"role": "owner"}, "cannot be owner"),
        ({"role": "consumer"}, "bound to its destinations; name them"),
        ({"role": "viewer", "destinations": ["shop"]}, "only a consumer"),
        ({"role": "metrics", "sources": ["acme"]}, "those of all sources"),
        ({"role": "viewer", "sources": ["nobody"]}, "'nobody' is not configured"),
        ({"role": "viewer", "expires": "2020-01-01T00:00:00Z"}, "would have expired"),
    ],
)
async def test_a_token_that_makes_no_sense_is_refused(console: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(OperationRefused, match=message):
        await make_token(console, "odd", **changes)


async def test_a_limited_token_sees_and_touches_its_own_sources_only(console: Any, listen: Any) -> None:
    await console.add_source("elsewhere")
    await console.add_destination("shop")
    await console.record(Via.WEBHOOK, "evt_1", source="elsewhere")
    async with listen(access=WIDE) as client:
        headers = await make_token(console, "acme-only", "operator", sources=["acme"])
        status = (await client.get("/api/status", headers=headers)).json()
        assert [each["name"] for each in status["sources"]] == ["acme"]
        assert status["destinations"] == []
        assert "elsewhere" not in (await client.get("/", headers=headers)).text
        assert (await client.get("/metrics", headers=headers)).status_code == 403
        for name, args, code in (
            ("import", {"source": "acme", "events": []}, 200),
            ("import", {"source": "elsewhere", "events": []}, 403),
            ("dead.requeue", {}, 403),
            ("source.rename", {"old": "acme", "new": "mine"}, 403),
            ("event.replay", {"destination": "shop", "keys": ["evt_1"]}, 403),
            ("config.activate", {"digest": "0" * 64}, 403),
        ):
            answer = await client.post(f"/api/operations/{name}", json=args, headers=headers)
            assert answer.status_code == code, (name, answer.text)


async def test_a_limited_token_cancels_and_follows_its_own_passes_only(console: Any) -> None:
    other = await console.add_source("elsewhere")
    made = await perform(console.context, "source.pass", {"source": "elsewhere"})
    (row,) = made["passes"]  # type: ignore[misc]
    limited = console.context.acting_as(Principal(name="a", role=AccessRole.OPERATOR, sources=frozenset(("acme",))))
    assert (await perform(limited, "pass.status", {"ids": [row["id"]]}))["passes"] == []
    with pytest.raises(OperationRefused, match="there is no pass"):
        await perform(limited, "pass.cancel", {"ids": [row["id"]]})
    assert (await console.context.read(passes.progress, pass_ids=[row["id"]]))[0].source == other.name


@on_sqlite
async def test_a_consumer_reports_for_its_own_destination_only(console: Any, listen: Any) -> None:
    for name in ("shop", "books"):
        await console.add_destination(name)
    async with listen(access=WIDE) as client:
        headers = await make_token(console, "handler", "consumer", destinations=["shop"])
        for destination, code in (("shop", 200), ("books", 403)):
            body = {"destination": destination, "source": "acme", "keys": ["evt_1"]}
            assert (await client.post("/api/v1/receipts", json=body, headers=headers)).status_code == code


@on_sqlite
async def test_wrong_tokens_are_slowed_per_address_and_others_go_on(console: Any, listen: Any) -> None:
    proxies = TrustedProxies(networks=WRONG_FROM, header="x-forwarded-for")
    async with listen(access=WIDE, trusted_proxies=proxies) as client:
        good = await make_token(console, "see", "viewer") | {"x-forwarded-for": "203.0.113.9"}
        assert (await client.get("/api/status", headers=good)).status_code == 200
        bad = WRONG | {"x-forwarded-for": "203.0.113.9"}
        codes = [(await client.get("/api/status", headers=bad)).status_code for _ in range(10)]
        assert codes == [401] * 10
        slowed = await client.get("/api/status", headers=bad)
        assert (slowed.status_code, slowed.headers["retry-after"]) == (429, "5")
        late = await make_token(console, "late", "viewer") | {"x-forwarded-for": "203.0.113.9"}
        assert (await client.get("/api/status", headers=late)).status_code == 429
        assert (await client.get("/api/status", headers=late | {"x-forwarded-for": "198.51.100.1"})).status_code == 200
        for headers in (good, late, RUN | {"x-forwarded-for": "203.0.113.9"}):
            assert (await client.get("/api/status", headers=headers)).status_code == 200
        console.now[0] += timedelta(seconds=5)
        assert (await client.get("/api/status", headers=bad)).status_code == 401
        assert (await client.get("/api/status", headers=bad)).status_code == 429


async def test_wrong_tokens_are_one_row_per_address_and_minute(console: Any, listen: Any) -> None:
    proxies = TrustedProxies(networks=WRONG_FROM, header="x-forwarded-for")
    async with listen(access=WIDE, trusted_proxies=proxies) as client:
        for address, times in (("203.0.113.9", 3), ("2001:db8::1", 1), ("2001:db8::2", 1)):
            for _ in range(times):
                await client.get("/api/status", headers=WRONG | {"x-forwarded-for": address})
        await client.post("/api/operations/import", json={}, headers=await make_token(console, "see", "viewer"))
        console.now[0] += timedelta(minutes=1)
        for _ in range(600):
            rows = [each for each in await log(console) if each["subject"] == "listener"]
            if rows:
                break
            await asyncio.sleep(0.02)
    assert [(row["actor"], row["role"], row["action"]) for row in rows] == [
        ("203.0.113.9", "unknown", "login.failed"),
        ("2001:db8::/64", "unknown", "login.failed"),
        ("see", "viewer", "access.denied"),
    ]
    assert rows[0]["detail"] == '{"count":3,"minute":"2026-11-20T12:30:00+00:00"}'
    assert console.metrics.registry.get_sample_value("gapless_login_failures_total") == 5


@on_sqlite
async def test_many_addresses_make_no_more_than_a_few_rows(console: Any, listen: Any) -> None:
    proxies = TrustedProxies(networks=WRONG_FROM, header="x-forwarded-for")
    async with listen(access=WIDE, trusted_proxies=proxies) as client:
        for n in range(60):
            await client.get("/api/status", headers=WRONG | {"x-forwarded-for": f"203.0.113.{n}"})
    rows = [each for each in await log(console) if each["subject"] == "listener"]
    assert len(rows) == 21
    assert (rows[-1]["actor"], '"count":40' in rows[-1]["detail"]) == ("other addresses", True)


@on_sqlite
@pytest.mark.parametrize("header", ["Forwarded", "Via", "X-Real-IP", "X-Forwarded-For", "X-Forwarded-Host"])
async def test_on_loopback_what_came_through_a_proxy_needs_the_token(listen: Any, header: str) -> None:
    async with listen() as client:
        for path, setting in (("/api/status", "private.token_env"), ("/metrics", "private.metrics_token_env")):
            refused = await client.get(path, headers={header: "for=203.0.113.9"})
            assert (refused.status_code, setting in refused.json()["error"]) == (403, True)
            assert (await client.get(path, headers={header: "x", **RUN})).status_code == 200
        assert (await client.get("/livez", headers={header: "x"})).status_code == 200


@on_sqlite
async def test_a_vanished_token_is_one_line_and_503(console: Any, listen: Any, caplog: Any) -> None:
    tokens = [Secret("a-long-token-0123")]

    def now() -> Secret:
        if not tokens:
            raise SecretUnavailable("the file cannot be read (FileNotFoundError); check its path and its mode")
        return tokens[0]

    async with listen(access=replace(WIDE, token=now)) as client:
        named = await make_token(console, "see", "viewer")
        secret = tokens.pop()
        with caplog.at_level(logging.INFO, logger="gapless"):
            for _ in range(5):
                answer = await client.get("/api/status", headers={"authorization": "Bearer a-long-token-0123"})
                assert (answer.status_code, "cannot be read now" in answer.json()["error"]) == (503, True)
            for headers in (named, RUN):
                assert (await client.get("/api/status", headers=headers)).status_code == 200
            tokens.append(secret)
            await client.get("/api/status")
        said = [each.message for each in caplog.records if each.message.startswith("token_")]
        assert said == ["token_unavailable", "token_available"]


async def test_every_action_is_in_the_log_with_who_and_why(console: Any, listen: Any) -> None:
    console.use()
    console.context.runtime.audit_key = AuditKey(Secret("the-key-of-the-audit-log"))
    async with listen(access=WIDE) as client:
        act = await make_token(console, "act", "operator")
        body = {"source": "acme", "events": [{"key": "evt_1"}]}
        for headers in (ANN, act, {"authorization": "Bearer a-long-token-0123"}, act | {"x-gapless-actor": "eve"}):
            body["events"][0]["key"] += "1"  # type: ignore[index]
            answer = await client.post("/api/operations/import", json=body | {"note": "moved house"}, headers=headers)
            assert answer.status_code == 200
    rows = await log(console)
    assert [(row["actor"], row["role"], row["action"], row["reason"]) for row in rows] == [
        ("api", "owner", "token.create", None),
        ("ann", "owner", "import", "moved house"),
        ("act", "operator", "import", "moved house"),
        ("private.token", "operator", "import", "moved house"),
        ("act", "operator", "import", "moved house"),
    ]
    found = await console.context.read(verify, [console.context.runtime.audit_key])
    assert (found.rows, found.findings) == (5, ())


@on_sqlite
async def test_the_daemon_prunes_the_log_as_configured(console: Any) -> None:
    await make_token(console, "see", "viewer")
    writer, limits = console.context.runtime.writer, RetentionSettings(audit_log=timedelta(days=2))
    for days, actions in ((1, ["token.create"]), (4, ["log.prune"])):
        await maintenance.prune_once(writer, limits, [], to_us(console.now[0] + timedelta(days=days)))
        assert [row["action"] for row in await log(console)] == actions


async def test_a_principal_without_the_role_is_forbidden_whoever_calls(console: Any) -> None:
    viewer = console.context.acting_as(Principal(name="see", role=AccessRole.VIEWER))
    with pytest.raises(OperationForbidden, match="see has the role viewer; import needs operator"):
        await perform(viewer, "import", {"source": "acme", "events": []})
