"""The public application: one static route per source, `/healthz`, and nothing else.

Static, because path parameters on `@asgi` raise in Litestar 2.25; `@asgi`, because a routed handler
costs as much again as verifying the webhook.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import httpx
from litestar import Litestar, Request, Response, asgi
from litestar.exceptions import HTTPException
from litestar.handlers import ASGIRouteHandler

from gapless.domain import Clock, Sources, span_us, to_us
from gapless.ledger.sources import RETIRED_GRACE
from gapless.ledger.writer import Writer
from gapless.metrics import Metrics
from gapless.receive import answers
from gapless.receive.endpoint import Endpoint, Receive, ReceiveOptions, Receiver, Scope, Send
from gapless.receive.evidence import Evidence
from gapless.receive.intake import Intake
from gapless.receive.quarantine import Quarantine
from gapless.receive.streams import Streams
from gapless.receive.webhook import Outcome

WEBHOOKS: Final = "/webhooks/"
HEALTHZ: Final = "/healthz"
SERVING: Final[Mapping[str, Any]] = {
    "access_log": False,
    "log_config": None,
    "proxy_headers": False,
    "server_header": False,
    "ws": "none",
}
"""Options of uvicorn: nothing per request that nobody reads, no websockets."""

Answering = Callable[[Scope, Receive, Send], Awaitable[None]]


def make_receiver(
    *,
    sources: Sources,
    writer: Writer,
    metrics: Metrics,
    clock: Clock,
    options: ReceiveOptions,
    client: httpx.AsyncClient | None = None,
) -> Receiver:
    """The parts of the receive road, wired. The caller runs `intake.watch` and `quarantine.run`.

    `client` is what evidence is fetched with; None: one of its own.
    """
    metrics.recorder_queue.set_function(lambda: writer.queued)
    return Receiver(
        sources=sources,
        writer=writer,
        metrics=metrics,
        clock=clock,
        intake=Intake(),
        quarantine=Quarantine(writer, metrics, options.quarantine),
        streams=Streams(writer),
        evidence=Evidence(client or httpx.AsyncClient(trust_env=False), clock, metrics),
        options=options,
    )


def build_app(receiver: Receiver, retired: Mapping[str, int] | None = None) -> Litestar:
    """The application for the sources that `receiver` has now. `retired`: since when, in microseconds, by name."""
    sources = receiver.sources
    routes = [_route(WEBHOOKS + source.name, Endpoint(source, receiver).answer) for source in sources]
    gone = {name: since_us for name, since_us in (retired or {}).items() if name not in sources}
    routes += [_route(WEBHOOKS + name, _retired(receiver, name, since_us)) for name, since_us in gone.items()]
    routes.append(_route(HEALTHZ, _healthz(receiver.intake)))

    def unrouted(_: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
        receiver.metrics.unrouted.inc()
        body = answers.UNROUTED[1]["body"]
        return Response(content=body, status_code=error.status_code, media_type=answers.JSON)

    return Litestar(
        route_handlers=routes,
        exception_handlers={HTTPException: unrouted},
        openapi_config=None,
        logging_config=None,
        debug=False,
        pdb_on_exception=False,
    )


def _route(path: str, answering: Answering) -> ASGIRouteHandler:
    return asgi(path, copy_scope=False)(answering)


def _healthz(intake: Intake) -> Answering:
    """200 while webhooks are taken, for a load balancer."""

    async def healthz(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI names them
        await _send_all(scope, send, _health(scope, intake))

    return healthz


def _health(scope: Scope, intake: Intake) -> answers.Response:
    if scope.get("method") not in ("GET", "HEAD"):
        return answers.WRONG_METHOD
    return answers.unavailable() if intake.closed_because else answers.HEALTHY


def _retired(receiver: Receiver, name: str, since_us: int) -> Answering:
    """503 for a time, so that the provider keeps trying while somebody decides; then as if it never was."""
    until_us = since_us + span_us(RETIRED_GRACE)
    turned_away = receiver.metrics.webhooks.labels(name, Outcome.UNAVAILABLE.value)

    async def retired(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001 - ASGI names them
        if to_us(receiver.clock()) < until_us:
            turned_away.inc()
            await _send_all(scope, send, answers.unavailable())
        else:
            receiver.metrics.unrouted.inc()
            await _send_all(scope, send, answers.UNROUTED)

    return retired


async def _send_all(scope: Scope, send: Send, response: answers.Response) -> None:
    if scope["type"] != "http":
        await send({"type": "websocket.close"})
        return
    for message in response:
        await send(message)
