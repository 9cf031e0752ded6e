"""The display while the demo runs: live on a terminal, plain lines elsewhere."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gapless.demo.configuration import CLOSING, PhasePlan
from gapless.demo.report import DemoSnapshot

BAR_WIDTH = 32
SPARKS = " ▁▂▃▄▅▆▇█"
PLAIN_EVERY_S = 1.0


class Display(Protocol):
    """The place where snapshots are shown."""

    def open(self, address: str) -> None:
        """Begin. `address` is that of the private listener and is shown all the time."""

    def show(self, snapshot: DemoSnapshot) -> None:
        """Show `snapshot` now."""


@contextmanager
def open_display(console: Console, plan: PhasePlan) -> Iterator[Display]:
    """Yield a live display on a terminal, which disappears when the block ends; elsewhere plain lines."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainDisplay(console)
        return
    display = LiveDisplay(Live(console=console, refresh_per_second=8, transient=True), plan)
    try:
        yield display
    finally:
        display.close()


class PlainDisplay:
    """One line a second, and one when a phase begins. ASCII only."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._next_s = 0.0

    def open(self, address: str) -> None:
        """Do nothing: the address is printed above the lines."""

    def show(self, snapshot: DemoSnapshot) -> None:
        """Print the snapshot if a second is over or a phase begins."""
        if snapshot.phase.name == self._phase and snapshot.elapsed_s < self._next_s:
            return
        self._phase, self._next_s = snapshot.phase.name, snapshot.elapsed_s + PLAIN_EVERY_S
        self._console.print(line(snapshot), markup=False, highlight=False, soft_wrap=True)


def line(snapshot: DemoSnapshot) -> str:
    """Return the snapshot in one line."""
    return (
        f"{snapshot.elapsed_s:5.1f}s  {snapshot.phase.name:<19}  provider {snapshot.at_provider:>4}"
        f"  ledger {shown(snapshot.by_webhook):>4} by webhook {shown(snapshot.by_list):>3} by list"
        f"  consumer {snapshot.at_consumer:>4}  missing {snapshot.missing:>3}  complete up to {moment(snapshot)}"
    )


class LiveDisplay:
    """The live view. It keeps the latest numbers of missing events to draw their course."""

    def __init__(self, live: Live, plan: PhasePlan) -> None:
        self._live = live
        self._plan = plan
        self._address = ""
        self._missing: deque[int] = deque(maxlen=BAR_WIDTH)

    def open(self, address: str) -> None:
        """Start the live display."""
        self._address = address
        self._live.start()

    def show(self, snapshot: DemoSnapshot) -> None:
        """Draw `snapshot`."""
        self._live.update(self.draw(snapshot))

    def close(self) -> None:
        """Stop the live display and release the terminal."""
        self._live.stop()

    def draw(self, snapshot: DemoSnapshot) -> Padding:
        """Return the view of `snapshot`."""
        self._missing.append(snapshot.missing)
        return Padding(Group(self._heading(snapshot), "", self._timeline(snapshot), "", self._counts(snapshot)), (1, 2))

    def _heading(self, snapshot: DemoSnapshot) -> Text:
        length = "" if snapshot.length_s is None else f" of {snapshot.length_s:.0f} s"
        clock = f"{snapshot.elapsed_s:.0f} s{length}" if snapshot.phase is not CLOSING else "closing the gap"
        return Text.assemble(("gapless demo", "bold"), f"  {clock}   console ", (self._address, "bold cyan underline"))

    def _timeline(self, snapshot: DemoSnapshot) -> Text:
        phases = [phase for _, phase in self._plan.phases] + [CLOSING]
        now = phases.index(snapshot.phase)
        words = Text()
        for place, phase in enumerate(phases):
            style = "dim" if place < now else "bold reverse" if place == now else "default"
            words.append(" → " if place else "", "dim")
            words.append(f" {phase.name} " if place == now else phase.name, style)
        return words

    def _counts(self, snapshot: DemoSnapshot) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(min_width=24)
        table.add_column(justify="right", min_width=5)
        table.add_column()
        most = max(snapshot.at_provider, 1)
        table.add_row("at the provider", str(snapshot.at_provider), bar(snapshot.at_provider, most, "blue"))
        table.add_row(
            "in the ledger by webhook", shown(snapshot.by_webhook), bar(snapshot.by_webhook or 0, most, "green")
        )
        table.add_row("in the ledger by list", shown(snapshot.by_list), bar(snapshot.by_list or 0, most, "yellow"))
        table.add_row("at the consumer", str(snapshot.at_consumer), bar(snapshot.at_consumer, most, "green"))
        style = "bold red" if snapshot.missing else "bold green"
        table.add_row(
            Text("missing right now", style), Text(str(snapshot.missing), style), Text(sparkline(self._missing), style)
        )
        table.add_row("")
        table.add_row("complete up to", "", _proof(snapshot))
        table.add_row("duplicates absorbed", shown(snapshot.duplicates))
        table.add_row("requests to the provider", str(snapshot.requests))
        table.add_row("daemon", "", _daemon(snapshot))
        return table


def _proof(snapshot: DemoSnapshot) -> Text:
    behind = "" if snapshot.behind_s is None else f"  ({snapshot.behind_s:.0f} s ago)"
    return Text.assemble((moment(snapshot), "bold"), (behind, "dim"))


def _daemon(snapshot: DemoSnapshot) -> Text:
    if snapshot.daemon_runs:
        return Text("running", "green")
    return Text("killed (SIGKILL): no webhook is received", "bold red")


def bar(count: int, most: int, style: str) -> Text:
    """Return a bar whose length is the share of `count` in `most`."""
    return Text("━" * round(BAR_WIDTH * min(count, most) / most), style)


def sparkline(samples: deque[int]) -> str:
    """Return the samples as a row of blocks; the largest sample has the highest block."""
    most = max(*samples, 1) if samples else 1
    return "".join(SPARKS[-(-sample * (len(SPARKS) - 1) // most)] for sample in samples)


def shown(count: int | None) -> str:
    """Return the count, or "?" while it is unknown."""
    return "?" if count is None else str(count)


def moment(snapshot: DemoSnapshot) -> str:
    """Return the time up to which everything is proven complete, as local time of day, or "?" while it is unknown."""
    return "?" if snapshot.complete_up_to is None else f"{snapshot.complete_up_to.astimezone():%H:%M:%S}"
