"""A real Prometheus with the shipped rules and a real Alertmanager with the shipped example, with shorter waits.

`for`, the ranges of `increase` and the limit of an hour are seconds here; promtool tests the rules as they are.
"""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import httpx
from aiohttp import web
from outside import free_port

CONFIG = Path(__file__).parents[2] / "config"
Absent = Callable[[str, str], NoReturn]
RANGE = "20s"


def in_seconds(rules: str) -> str:
    """The rules with waits of seconds instead of minutes and hours."""
    rules = re.sub(r"\bfor: \w+", "for: 1s", rules)
    rules = re.sub(r"((?:increase|avg_over_time)\([^\[]*)\[\w+\]", rf"\1[{RANGE}]", rules)
    rules = re.sub(r"offset 1h", f"offset {RANGE}", rules)
    return re.sub(r"> 3600\b", "> 15", rules)


@dataclass
class Alerts:
    """What Alertmanager has told: (receiver, alert, cluster, source or destination) -> firing or resolved."""

    prometheus: httpx.AsyncClient
    alertmanager: httpx.AsyncClient
    told: dict[tuple[str, str, str, str], str] = field(default_factory=dict)
    ever: set[tuple[str, str, str, str]] = field(default_factory=set)
    """All that ever fired."""

    def note(self, receiver: str, body: Mapping[str, Any]) -> None:
        """Take a notification."""
        for alert in body["alerts"]:
            labels = alert["labels"]
            whose = labels.get("source") or labels.get("destination") or ""
            key = (receiver, labels["alertname"], labels.get("cluster", ""), whose)
            self.told[key] = alert["status"]
            if alert["status"] == "firing":
                self.ever.add(key)

    def firing(self) -> set[str]:
        """The names of alerts that fire, as far as was told."""
        return {name for (_, name, _, _), status in self.told.items() if status == "firing"}

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """What Prometheus answers."""
        answer = await self.prometheus.get("/api/v1/query", params={"query": expr})
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    async def inhibited(self) -> set[str]:
        """The names of alerts that Alertmanager keeps back because of another."""
        answer = await self.alertmanager.get("/api/v2/alerts")
        return {each["labels"]["alertname"] for each in answer.json() if each["status"]["inhibitedBy"]}


@asynccontextmanager
async def process(*command: str) -> AsyncIterator[None]:
    """A program that runs while the block does."""
    null = asyncio.subprocess.DEVNULL
    running = await asyncio.create_subprocess_exec(*command, stdout=null, stderr=null)
    try:
        yield
    finally:
        running.terminate()
        await running.wait()


@asynccontextmanager
async def serving(*routes: web.RouteDef) -> AsyncIterator[str]:
    """An HTTP server on a free port: its address."""
    app = web.Application()
    app.add_routes(routes)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await runner.cleanup()


def _alertmanager_config(sink: str) -> str:
    text = (CONFIG / "alertmanager/alertmanager.yml").read_text()
    text = re.sub(r"http://(pager|tickets)\.example/gapless", rf"http://{sink}/\1", text)
    return re.sub(r"(group_wait|group_interval): \w+", r"\1: 1s", text)


def _prometheus_config(targets: Mapping[str, str], alertmanager: str, folder: Path) -> str:
    static = "".join(
        f"      - targets: ['{target.partition('/')[0]}']\n"
        f"        labels: {{ cluster: {cluster}, __metrics_path__: '/{target.partition('/')[2]}' }}\n"
        for cluster, target in targets.items()
    )
    return (
        "global: { scrape_interval: 1s, evaluation_interval: 1s }\n"
        f"rule_files: ['{folder}/alerts.yml', '{folder}/slo.yml']\n"
        f"alerting: {{ alertmanagers: [{{ static_configs: [{{ targets: ['{alertmanager}'] }}] }}] }}\n"
        f"scrape_configs:\n  - job_name: gapless\n    static_configs:\n{static}"
    )


@asynccontextmanager
async def alerting(targets: Mapping[str, str], folder: Path, absent: Absent) -> AsyncIterator[Alerts]:
    """Prometheus and Alertmanager over `targets`: host:port/path by cluster."""
    prometheus = shutil.which("prometheus") or absent("prometheus", "it is not on the PATH")
    debians = shutil.which("prometheus-alertmanager")
    alertmanager = debians or shutil.which("alertmanager") or absent("alertmanager", "it is not on the PATH")
    for name in ("alerts.yml", "slo.yml"):
        (folder / name).write_text(in_seconds((CONFIG / "prometheus" / name).read_text()))
    ports = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://{each}")) for each in ports]
        alerts = Alerts(*clients)

        async def note(request: web.Request) -> web.Response:
            alerts.note(request.path.strip("/"), await request.json())
            return web.Response()

        sink = await stack.enter_async_context(serving(web.post("/pager", note), web.post("/tickets", note)))
        (folder / "alertmanager.yml").write_text(_alertmanager_config(sink))
        (folder / "prometheus.yml").write_text(_prometheus_config(targets, ports[1], folder))
        for program, config, listen, *more in (
            (prometheus, "prometheus.yml", ports[0], f"--storage.tsdb.path={folder}/tsdb"),
            (alertmanager, "alertmanager.yml", ports[1], f"--storage.path={folder}/am", "--cluster.listen-address="),
        ):
            command = (f"--config.file={folder}/{config}", f"--web.listen-address={listen}", *more)
            await stack.enter_async_context(process(program, *command))
        yield alerts
