"""What the kinds for brokers and databases refuse before they connect, and the names that they fill in."""

import asyncio
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from own_brokers import context, delivery

from gapless.destinations import brokers, registry
from gapless.destinations.brokers import KeptConnection
from gapless.destinations.contract import DestinationInvalid
from gapless.destinations.headers import repeat_id
from gapless.destinations.kafka import KafkaOptions, KafkaSender
from gapless.destinations.nats import NatsOptions, NatsSender
from gapless.settings import SettingsInvalid, load

ROOT = Path(__file__).parents[3]
ENVIRON = {"PASSWORD": "hunter2hunter2", "URL": "postgresql://gapless:hunter2@db/billing"}
TOGETHER = "options user and password belong together; set both, with password_env or password_file, or neither"
NATS = 'type = "nats"\nservers = ["nats://a:4222"]\nsubject = "s"\n'
RABBITMQ = 'type = "rabbitmq"\nurl = "amqp://a/"\nrouting_key = "q"\n'
KAFKA = 'type = "kafka"\nservers = ["a:9092"]\ntopic = "t"\n'
SQS = 'type = "sqs"\nqueue_url = "https://sqs.eu-central-1.amazonaws.com/1/q"\n'
POSTGRES = 'type = "postgres"\nurl_env = "URL"\n'


def problem(folder: Path, toml: str) -> str:
    file = folder / "gapless.toml"
    file.write_text(f'[[destination]]\nname = "d"\n{toml}')
    with pytest.raises(SettingsInvalid) as caught:
        load(file, ENVIRON)
    assert "hunter2" not in str(caught.value)
    (sentence,) = caught.value.problems
    return sentence.partition("destination.d: ")[2] or sentence


@pytest.mark.parametrize("toml", [NATS, RABBITMQ, KAFKA, SQS, POSTGRES])
def test_the_least_of_each_kind_is_accepted(tmp_path: Path, toml: str) -> None:
    file = tmp_path / "gapless.toml"
    file.write_text(f'[[destination]]\nname = "d"\n{toml}')
    (destination,) = load(file, ENVIRON).destinations
    assert "hunter2" not in f"{destination}{destination.options.address}"
    assert registry.load(destination.type).Options is type(destination.options)


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ('type = "nats"\nsubject = "s"', 'option servers is missing; wanted a list such as ["nats://127.0.0.1:4222"]'),
        ('type = "nats"\nservers = ["nats://a:1"]', "option subject is missing; wanted the subject of a stream, su"),
        (NATS.replace("nats://a", "nats://u:hunter2@a"), "option servers is a list; wanted a list of addresses suc"),
        (NATS.replace('"s"', '"s.>"'), 'option subject is "s.>"; wanted a subject without * and >'),
        (NATS.replace('"s"', '"s.{kind}"'), "option subject has the placeholder {kind}; wanted one of {source}, {s"),
        (NATS.replace('"s"', '"s.{type"'), "option subject has a single brace; wanted placeholders such as {type}"),
        (NATS + 'user = "u"', TOGETHER),
        (NATS + 'password_env = "PASSWORD"', TOGETHER),
        (NATS + 'user = "u"\npassword_env = "PASSWORD"\ntoken_env = "PASSWORD"', "options token and user exclude e"),
        (NATS + 'certificate_key = "k.pem"', "option certificate is missing; certificate_key is the key of a certi"),
        (NATS + 'topic = "t"', 'option topic is for type "kafka"; leave it out, or change type'),
        ('type = "rabbitmq"\nrouting_key = "q"', "option url is missing; wanted an address such as amqp://127.0.0."),
        ('type = "rabbitmq"\nurl = "amqp://a/"', "option routing_key is missing; wanted the name of a queue, or wi"),
        (RABBITMQ.replace("amqp:", "http:"), 'option url is "http://a/"; wanted an address such as amqp://host:567'),
        ('type = "kafka"\ntopic = "t"', 'option servers is missing; wanted a list such as ["127.0.0.1:9092"]'),
        (KAFKA.replace("a:9092", "kafka://a:9092"), "option servers is a list; wanted a list of brokers, each as h"),
        (KAFKA + 'ca = "ca.pem"', "options ca and certificate are of TLS; set tls = true"),
        (KAFKA + 'user = "u"\npassword_env = "PASSWORD"', 'option sasl "PLAIN" sends the password in the open; set'),
        (KAFKA + 'producer = { acks = "0" }', "option producer.acks may not be set; the other keys set it, or at-l"),
        ('type = "sqs"', "option queue_url is missing; wanted the URL of a queue, as AWS shows it"),
        ('type = "sqs"\nqueue_url = "http://localhost:4566/1/q"', "option region is missing; the host of queue_url"),
        (SQS + 'access_key_id = "x"', "options access_key_id and secret_access_key belong together; set both or ne"),
        (SQS + 'group = "g"', "option group is for a FIFO queue, whose URL ends in .fifo; leave it out"),
        ('type = "postgres"', "option url_env is missing; wanted url_env or url_file with postgresql://"),
        (POSTGRES + 'table = "a.b.c"', 'option table is "a.b.c"; wanted a table or schema.table'),
        (POSTGRES + 'table = "a; DROP TABLE b"', 'option table is "a; DROP TABLE b"; wanted a table or schema.table'),
    ],
)  # fmt: skip
def test_options_that_cannot_work_are_refused_in_a_sentence(tmp_path: Path, toml: str, sentence: str) -> None:
    assert sentence in problem(tmp_path, toml)


WITHOUT_CLIENTS = """
import sys
sys.modules |= dict.fromkeys(("aio_pika", "asyncpg", "botocore", "confluent_kafka", "nats"))
from own_brokers import context
from gapless.destinations import registry
for kind in registry.kinds():
    found = registry.load(kind)
    try:
        found(found.Options(), context())
    except Exception as error:
        print(f"{kind}: {type(error).__name__}: {error}")
"""


def test_a_client_that_is_not_installed_is_named_with_the_command() -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}/tests/support:{ROOT}/tests"}
    command = [sys.executable, "-c", WITHOUT_CLIENTS]
    told = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=True).stdout
    packages = {
        "kafka": "confluent_kafka",
        "nats": "nats",
        "postgres": "asyncpg",
        "rabbitmq": "aio_pika",
        "sqs": "botocore",
    }
    for kind, package in packages.items():
        sentence = f'destination "queue": type "{kind}" needs the package {package}, which is not installed; run: '
        assert f"{kind}: DestinationInvalid: {sentence}pip install 'gapless[{kind}]'\n" in told


def test_each_kind_with_a_client_has_an_extra_of_its_name() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(registry.kinds()) - {"http", "python"} == extras.keys() - {"encryption", "oidc", "test"}


def test_files_of_tls_that_cannot_be_used_are_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for ca in ("nowhere.pem", str(tmp_path / "ca.pem")):
        with pytest.raises(
            DestinationInvalid, match='destination "queue": ca, certificate or certificate_key cannot be'
        ):
            NatsSender(NatsOptions(servers=("tls://a:1",), subject="s", ca=ca), context())
        with pytest.raises(DestinationInvalid, match="name PEM files that this user can read"):
            KafkaSender(KafkaOptions(servers=("a:1",), topic="s", tls=True, ca=ca), context())


@given(type_=st.text(max_size=40), stream=st.text(max_size=40))
def test_a_name_is_filled_in_with_what_every_broker_takes(type_: str, stream: str) -> None:
    name = brokers.filled("a.{source}.{type}.{stream}.{mode}", delivery(type=type_, stream=stream))
    assert not brokers.UNSAFE.search(name)
    assert all(name.split("."))


def test_names_keep_the_words_of_the_event() -> None:
    assert brokers.filled("{source}.{type}.{mode}", delivery(livemode=False)) == "acme.invoice.paid.test"
    assert brokers.filled("{type}-{mode}", delivery(type="a b.*.>", stream="")) == "a_b._._-live"


def test_the_id_for_repeats_differs_by_generation_and_destination_alone() -> None:
    one = delivery()
    same = {repeat_id("a", each) for each in (one, delivery(attempt=2))}
    others = {repeat_id("a", delivery(generation=1)), repeat_id("b", one), repeat_id("a", delivery("evt_2"))}
    assert len(same) == 1
    assert len(same | others) == 4


@pytest.mark.anyio
async def test_a_lost_connection_is_closed_once_and_made_anew() -> None:
    made, closed = list[list[bool]](), list[list[bool]]()

    async def connect() -> list[bool]:
        made.append([True])
        return made[-1]

    async def close(connection: list[bool]) -> None:
        closed.append(connection)

    is_open: Callable[[list[bool]], bool] = lambda connection: connection[0]  # noqa: E731 - it has a type
    kept = KeptConnection(connect, is_open, close)
    assert kept.kept is None
    first = await kept.get()
    assert await kept.get() is first
    first[0] = False
    second = await kept.get()
    assert second is not first
    assert closed == [first]
    await kept.close()
    await kept.close()
    assert closed == [first, second]
    assert len(made) == 2


@pytest.mark.anyio
async def test_those_who_wait_for_a_connection_share_its_failure() -> None:
    attempts, answer = list[int](), asyncio.Event()

    async def connect() -> int:
        attempts.append(len(attempts))
        await answer.wait()
        if len(attempts) == 1:
            raise OSError("refused")
        return attempts[-1]

    async def close(_: int) -> None:
        return

    kept = KeptConnection(connect, lambda _: True, close)
    waiting = [asyncio.create_task(kept.get()) for _ in range(4)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    answer.set()
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in results] == [asyncio.CancelledError, *[OSError] * 3]
    assert attempts == [0]
    assert await kept.get() == 1
    answer.clear()
    await kept.close()
    unheard = asyncio.create_task(kept.get())
    await asyncio.sleep(0)
    await kept.close()
    with pytest.raises(asyncio.CancelledError):
        await unheard
