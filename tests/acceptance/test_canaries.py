"""A canary in every secret and in a masked field: after errors of every kind it is in nothing that anybody can see."""

import hashlib
import hmac
import html
import json
import re
import time
import traceback
from base64 import b64encode
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from inside import call
from outside import Gapless, running, until
from sqlalchemy import Connection
from sqlalchemy.engine import make_url

from gapless.console.api.document import encoded
from gapless.ledger.tables import METADATA
from gapless_reconcilers.testing.fake import FakeProvider
from gapless_reconcilers.testing.fake.formats.stripe import StripeFormat

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
SECRETS = {
    "STRIPE_API_KEY": "sk_live_canary_of_the_api_key",
    "STRIPE_WEBHOOK_SECRET": "whsec_canary_of_the_webhooks",
    "BOT_TOKEN": "123:canary_of_the_bot",
    "BOT_SECRET": "canary_of_the_bots_webhooks",
    "PRIVATE_TOKEN": "canary_of_the_console_0123456789abcdef",
    "METRICS_TOKEN": "canary_of_the_metrics_0123456789abcdef",
    "CONSUMER_TOKEN": "canary_of_the_consumer_0123456789abcdef",
    "CONSUMER_SECRET": "whsec_" + b64encode(b"canary of deliveries 0123456789a").decode(),
    "CONSUMER_HEADER": "canary_of_a_header",
    "NATS_PASSWORD": "canary_of_the_broker",
    "ROWS_URL": "postgresql://postgres:canary_of_the_rows@127.0.0.1:1/rows",
    "AUDIT_KEY": "canary_of_the_audit_log_0123456789abcdef",
}
DATABASE_PASSWORD = "canary_of_the_database"
EVENT_FILE = "event.json"
MOST_PAGES = 300
NAMED = {"source": "stripe-live", "key": "evt_canary", "destination": "away", "number": 1, "job_id": 1}
KEY = {"GAPLESS_ENCRYPTION__KEYS": f"first:{'5ca1ab1e' * 8}"}
WRONG_TOKEN, MASKED = "canary_of_a_stranger", "canary 4242 of a card"
CONFIG = """
[store]
url_env = "STORE_URL"
min_free = "1MB"
audit_key_env = "AUDIT_KEY"
[log]
level = "debug"
format = "{log_format}"
[public]
host = "127.0.0.1"
port = {public}
[private]
port = {private}
token_env = "PRIVATE_TOKEN"
metrics_token_env = "METRICS_TOKEN"
consumer_token_env = "CONSUMER_TOKEN"
[[source]]
name = "stripe-live"
provider = "stripe"
every = "1s"
every_max = "2s"
mask = ["/data/object/card", "/data/object/items/*/name"]
[source.options]
api_base = "{api}"
api_key_env = "STRIPE_API_KEY"
webhook_secret_env = "STRIPE_WEBHOOK_SECRET"
[[source]]
name = "bot"
provider = "telegram"
mode = "webhook"
[source.options]
api_base = "http://127.0.0.1:1"
token_env = "BOT_TOKEN"
webhook_secret_env = "BOT_SECRET"
[[destination]]
name = "away"
url = "http://127.0.0.1:1/hook"
allow = ["127.0.0.1"]
secret_env = "CONSUMER_SECRET"
headers_env = {{ x-key = "CONSUMER_HEADER" }}
since = "2020-01-01"
[[destination]]
name = "books"
type = "python"
target = "canary_books:handle"
folder = "{folder}"
since = "2020-01-01"
[[destination]]
name = "queue"
type = "nats"
servers = ["nats://127.0.0.1:1"]
subject = "events"
user = "gapless"
password_env = "NATS_PASSWORD"
since = "2020-01-01"
[[destination]]
name = "rows"
type = "postgres"
url_env = "ROWS_URL"
table = "gapless_event"
since = "2020-01-01"
"""
TARGET = """
import json
async def handle(delivery):
    card = json.loads(delivery.payload)["data"]["object"]["card"] if delivery.source == "stripe-live" else "none"
    raise ValueError(f"no account for {card} in {delivery.payload!r}")
"""
COMMANDS = (
    "status", "status --json", "source list", "source show stripe-live", "event list --json", "event show evt_canary",
    "event show evt_canary --payload", "event show 1", "event fetch evt_canary", "quarantine list --json",
    "check --offline", "missing list", "dead list", "audit stripe-live --since 1h",
    "--debug audit stripe-live --since 1h", "event send stripe-live {file}", "quarantine release --source bot",
    "--debug event fetch evt_canary", "--debug event send stripe-live {file} --url http://127.0.0.1:1/", "check",
    "source pass stripe-live --since 1h --dry-run", "event attempts evt_canary", "destination list --json",
    "log --json", "log verify", "keys check", "pass list", "job list", "token list", "providers show stripe",
    "measure stripe-live", "event replay evt_canary --destination away", "config activate", "db check",
    "status --nonsense",
)  # fmt: skip


@dataclass
class Watched(Gapless):
    """A daemon whose configuration holds a canary in every secret."""

    log_format: str = "json"

    @property
    def config(self) -> Path:
        path = self.folder / "canaries.toml"
        ports = {"public": self.public_port, "private": self.private_port}
        path.write_text(CONFIG.format(api=self.api, folder=self.folder, log_format=self.log_format, **ports))
        (self.folder / "canary_books.py").write_text(TARGET)
        return path


def event(key: str) -> bytes:
    """Return an event of Stripe with the canary in two masked fields."""
    found = {"id": "in_1", "object": "invoice", "card": MASKED, "items": [{"name": MASKED}]}
    whole = {"id": key, "object": "event", "type": "invoice.paid", "created": int(time.time()), "livemode": True}
    return json.dumps({**whole, "api_version": "2025-01-27.acacia", "data": {"object": found}}).encode()


def signed(body: bytes, secret: str) -> dict[str, str]:
    at = int(time.time())
    mac = hmac.new(secret.encode(), b"%d.%b" % (at, body), hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={at},v1={mac}"}


async def ask_all(daemon: Watched) -> tuple[str, list[int]]:
    """Send genuine and forged webhooks and ask the console; return what was answered, and the statuses."""
    answers = []
    update = b'{"update_id": %d, "message": {"date": 1795000000}}'
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        for key, secret in (("evt_canary", SECRETS["STRIPE_WEBHOOK_SECRET"]), ("evt_forged", "whsec_guess")):
            body = event(key)
            answers.append(await client.post(daemon.public, content=body, headers=signed(body, secret)))
        for number, secret in enumerate((SECRETS["BOT_SECRET"], WRONG_TOKEN), 1):
            headers = {"x-telegram-bot-api-secret-token": secret}
            url = daemon.public.replace("stripe-live", "bot")
            answers.append(await client.post(url, content=update % number, headers=headers))
        for path in ("/", "/api/v1/status", "/metrics", "/livez", "/readyz", "/nothing"):
            for token in ("PRIVATE_TOKEN", "METRICS_TOKEN", "CONSUMER_TOKEN"):
                headers = {"authorization": f"Bearer {SECRETS[token]}"}
                answers.append(await client.get(daemon.private + path, headers=headers))
            answers.append(await client.get(daemon.private + path, headers={"authorization": f"Bearer {WRONG_TOKEN}"}))
    said = "\n".join(f"{each.headers} {each.text}" for each in answers)
    return said, [each.status_code for each in answers]


async def visit_all(daemon: Watched) -> tuple[str, set[str]]:
    """Follow every link from the console's first page, and ask every path of the API; return what they answer."""
    said, visited, found = "", set[str](), ["/"]
    token = {"authorization": f"Bearer {SECRETS['PRIVATE_TOKEN']}"}
    async with httpx.AsyncClient(trust_env=False, timeout=60, headers=token, base_url=daemon.private) as client:
        while found and len(visited) < MOST_PAGES:
            if (path := found.pop()) in visited:
                continue
            visited.add(path)
            answer = await client.get(path, headers={"accept": "text/html"})
            assert answer.status_code < 400, path
            said += f"{path}: {answer.headers} {answer.text}"
            found += [html.unescape(each) for each in re.findall(r'(?:href|src)="(/[^"#]*)', answer.text)]
        for path, methods in json.loads(encoded())["paths"].items():
            asked = path.format(**NAMED)
            for method in methods:
                answer = await client.request(method, asked, json={"reason": "x"} if method == "post" else None)
                assert answer.status_code < 500, (method, asked, answer.text)
                said += f"{asked}: {answer.headers} {answer.text}"
    return said, visited


async def run_all(daemon: Watched, file: Path) -> str:
    """Run the commands; return all that they said, and the tracebacks that `--debug` leaves to Python."""
    said = ""
    for command in COMMANDS:
        done = await call(daemon, *command.format(file=file).split())
        error = done.exception
        said += f"{command}: {done.output}" + ("".join(traceback.format_exception(error)) if error else "")
    return said


def stored(connection: Connection) -> tuple[str, str]:
    """Return what the ledger holds elsewhere than in bodies, and all that it holds."""
    beside, whole = "", ""
    for table in METADATA.sorted_tables:
        for row in connection.execute(table.select()).mappings():
            whole += str(dict(row))
            beside += str({name: value for name, value in row.items() if name != "body"})
    return beside, whole


def titles(pid: int) -> str:
    """Return what the list of processes shows."""
    return "".join(Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "comm"))


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file that the daemon and the commands left."""
    return {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file() and each.name != EVENT_FILE}


def with_password(url: str) -> str:
    """Return the address of a database with a canary as password, which a server that trusts us does not look at."""
    known = make_url(url)
    if known.get_backend_name() == "sqlite":
        return url
    return known.set(password=DATABASE_PASSWORD).render_as_string(hide_password=False)


@pytest.mark.parametrize(("keys", "log_format"), [({}, "json"), (KEY, "console")], ids=["clear", "sealed"])
async def test_no_canary_leaves_its_place(
    store_url: str, tmp_path: Path, keys: dict[str, str], log_format: str
) -> None:
    """With keys, what is masked is in no file of the ledger either."""
    fake, url = FakeProvider(StripeFormat()), with_password(store_url)
    fake.faults.outage = True
    (tmp_path / EVENT_FILE).write_bytes(event("evt_sent"))
    async with (
        fake.serve() as api,
        running(Watched(tmp_path, url, api, environment=SECRETS | keys, log_format=log_format)) as daemon,
    ):
        said, statuses = await ask_all(daemon)
        assert statuses[:4] == [200, 401, 200, 401]
        assert {200, 401, 404} <= set(statuses)
        await until(lambda: daemon.log.read_text().count("target_raised") >= 2)
        fake.faults.key_revoked, fake.faults.outage = True, False
        said += await run_all(daemon, tmp_path / EVENT_FILE)
        shown, visited = await visit_all(daemon)
        said += shown
        assert {"/events/stripe-live/evt_canary", "/quarantine", "/tokens", "/audit-log"} <= visited
        if keys:
            assert [name for name, held in contents(tmp_path).items() if MASKED.encode() in held] == []
        assert daemon.process is not None
        said += titles(daemon.process.pid)
        await daemon.end()
        beside, whole = await daemon.read(stored)
    said += daemon.log.read_text()
    assert "ValueError: no account for ***" in said
    assert "evt_canary" in said
    assert (MASKED in whole) is not bool(keys)
    assert (MASKED in said, MASKED in beside) == (False, False)
    secrets = {**SECRETS, "of a stranger": WRONG_TOKEN, **{name: line.partition(":")[2] for name, line in keys.items()}}
    secrets |= {"ROWS_URL": "canary_of_the_rows", "STORE_URL": DATABASE_PASSWORD}
    assert [name for name, secret in secrets.items() if secret in said + whole] == []
    files = contents(tmp_path)
    assert [(name, file) for name, secret in secrets.items() for file in files if secret.encode() in files[file]] == []
    in_the_clear = {"ledger.db", "ledger.db-wal"} if not keys else set[str]()
    assert {file for file, held in files.items() if MASKED.encode() in held} <= in_the_clear
