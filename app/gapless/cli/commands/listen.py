"""`gapless listen`: events as they are recorded, printed, and forwarded to a handler that somebody develops."""

import asyncio
import base64
import os
import secrets
import signal
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import click

from gapless.cli import output
from gapless.cli.access import daemon_of
from gapless.cli.common import Invocation, failing_clearly
from gapless.cli.forwarding import NONE, PROVIDER, STANDARD, Attempted, Forwarder, signing_sources
from gapless.cli.param_types import TIME
from gapless.cli.stream_client import StreamClient, StreamEvent
from gapless.destinations.contract import Failed
from gapless.domain import Via
from gapless.settings import Settings
from gapless_reconcilers.kit.contract import Secret

STOP_WITHIN_S = 5.0
"""Time that the event under way has after Ctrl-C."""
SECRET_BYTES = 32


@click.command()
@click.option("--forward", help="The address of your handler, such as http://localhost:3000/webhooks.")
@click.option("--source", "sources", multiple=True, help="Only events of this source. May be given several times.")
@click.option("--types", multiple=True, help="Only these types, such as invoice.*. May be given several times.")
@click.option("--via", multiple=True, type=click.Choice([via.value for via in Via]), help="Only events that came so.")
@click.option("--since", type=TIME, help="First what was recorded from this time on, such as 2h.")
@click.option("--key", "keys", multiple=True, help="First this event, once more. May be given several times.")
@click.option("--after", help="First what came after this cursor, which an earlier call has printed.")
@click.option(
    "--secret-env", help="The variable with the secret to sign with. Default: a new secret, which is printed."
)
@click.option(
    "--signature",
    type=click.Choice([PROVIDER, STANDARD, NONE]),
    help="Default: the provider's, and Standard Webhooks for sources that are not configured here.",
)
@click.option("--url", help="The private listener of a daemon elsewhere. Default: the one on this machine.")
@click.option("--token-env", help="The variable with the token for --url.")
@click.pass_obj
def listen(
    invocation: Invocation,
    /,
    forward: str | None,
    secret_env: str | None,
    signature: str | None,
    url: str | None,
    token_env: str | None,
    keys: tuple[str, ...],
    **wanted: Any,
) -> None:
    """Forward events to a handler that you develop.

    Each is posted as it is recorded, and its line has the answer; without --forward it is only printed. What was missed
    and is recovered comes too. After a lost connection nothing is left out. Ctrl-C ends it.

    gapless listen --forward http://localhost:3000/webhooks --source stripe-live --since 2h
    """
    with failing_clearly(debug=invocation.debug):
        settings = invocation.settings()
        address, token = _daemon(settings, url, _secret_of(token_env, "--token-env"))
        query = _query(payload=forward is not None, **wanted)
        client = StreamClient(url=address, token=token, query=query, keys=keys, say=_say, cursor=wanted["after"])
        forwarder = None
        if forward is not None:
            secret = _secret_of(secret_env, "--secret-env") or _new_secret()
            sources = signing_sources(settings, os.environ)
            forwarder = Forwarder(url=forward, secret=secret, sources=sources, signature=signature)
            forwarder.sender(signature or (PROVIDER if len(sources) else STANDARD))  # fails now, not at the first event
        asyncio.run(_listen(Listening(client=client, forwarder=forwarder)))


@dataclass(slots=True, kw_only=True)
class Listening:
    """One call, and what it has done so far."""

    client: StreamClient
    forwarder: Forwarder | None
    taken: int = 0
    failed: int = 0
    masked: set[str] = field(default_factory=set)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while an event is handled."""

    async def run(self) -> None:
        """Handle events until cancelled."""
        async with aclosing(self.client.events()) as events:
            async for event in events:
                async with self.busy:
                    await self.handle(event)
                    self.client.cursor = event.cursor

    async def handle(self, event: StreamEvent) -> None:
        """Print one event, and forward it."""
        if self.forwarder is None:
            self.taken += 1
            click.echo(_line(event))
            return
        if event.masked and event.source not in self.masked:
            self.masked.add(event.source)
            _say(f"fields of {event.source} are masked (`mask`), so your handler gets *** in their place")
        is_taken = await self.forwarder.forward(event, lambda tried: click.echo(f"{_line(event)}  {_outcome(tried)}"))
        self.taken, self.failed = self.taken + is_taken, self.failed + (not is_taken)


async def _listen(listening: Listening) -> None:
    """Run until Ctrl-C; then let the event under way end, and say how to go on."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(NotImplementedError, RuntimeError):  # not in a thread
            loop.add_signal_handler(number, stop.set)
    running, stopping = asyncio.create_task(listening.run()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        with suppress(TimeoutError):
            async with asyncio.timeout(STOP_WITHIN_S):
                await listening.busy.acquire()
    finally:
        for task in (running, stopping):
            task.cancel()
        with suppress(asyncio.CancelledError):
            await running
        if listening.forwarder is not None:
            await listening.forwarder.close()
        _sum_up(listening)


def _sum_up(listening: Listening) -> None:
    done = "printed" if listening.forwarder is None else f"taken by the handler, {listening.failed} not"
    go_on = "" if listening.client.cursor is None else f"; to go on: --after {listening.client.cursor}"
    _say(f"{listening.taken} events {done}{go_on}")


def _daemon(settings: Settings, url: str | None, token: Secret | None) -> tuple[str, Secret | None]:
    """Return the address and the token of the daemon. Raises `SecretUnavailable`."""
    if url is not None:
        return url, token
    holder = daemon_of(settings)
    if holder is not None:
        return holder.url, Secret(holder.token)
    private = settings.private
    if private.port == 0:
        raise click.UsageError("private.port is 0, so the address of the daemon is not known; name it with --url")
    scheme = "http" if private.certificate is None else "https"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(private.host, private.host)  # noqa: S104
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{private.port}", token or (private.token.read() if private.token else None)


def _query(
    *,
    payload: bool,
    sources: Sequence[str],
    types: Sequence[str],
    via: Sequence[str],
    since: datetime | None,
    after: str | None,  # noqa: ARG001 - the client has it
) -> dict[str, str]:
    lists = {"source": sources, "types": types, "via": via}
    query = {name: ",".join(values) for name, values in lists.items() if values}
    if since is not None:
        query["since"] = since.isoformat()
    return query | ({"payload": "true"} if payload else {})


def _secret_of(variable: str | None, option: str) -> Secret | None:
    if variable is None:
        return None
    value = os.environ.get(variable, "").strip()
    if not value:
        raise click.UsageError(f"{option} names {variable}, which is not set or is empty")
    return Secret(value)


def _new_secret() -> Secret:
    secret = Secret("whsec_" + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode())
    _say(f"your handler's signing secret, for this call: {secret.reveal()}")
    return secret


def _line(event: StreamEvent) -> str:
    note = "again" if event.again else "missed" if event.missed else "-"
    cells = (event.recorded_at, event.source, event.type, event.key, event.via.value, note)
    return "  ".join(map(output.cell_text, cells))


def _outcome(tried: Attempted) -> str:
    result = tried.result
    detail = output.cell_text(getattr(result, "detail", ""))
    if not isinstance(result, Failed):
        return f"→ {detail} in {tried.took_ms} ms, signed: {tried.signature}"
    end = "not tried again" if tried.again_in_s is None else f"again in {tried.again_in_s:g} s"
    return f"→ {result.reason.value}: {detail}; {end}"


def _say(text: str) -> None:
    click.echo(f"gapless: {output.cell_text(text)}", err=True)
