"""What the terminal shows while the demo runs: a live picture on a terminal, plain lines elsewhere."""

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
    """Where the figures are shown."""

    def open(self, address: str) -> None:
        """Begin; `address` is the private listener's, to be shown all the time."""

    def show(self, figures: DemoSnapshot) -> None:
        """Show these figures now."""


@contextmanager
def open_screen(console: Console, script: PhasePlan) -> Iterator[Display]:
    """A live picture on a terminal, which goes when the block ends; else plain lines."""
    if not console.is_terminal or console.is_dumb_terminal:
        yield PlainDisplay(console)
        return
    picture = LiveDisplay(Live(console=console, refresh_per_second=8, transient=True), script)
    try:
        yield picture
    finally:
        picture.close()


class PlainDisplay:
    """One line a second, and one when a phase begins. ASCII only."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._next_s = 0.0

    def open(self, address: str) -> None:
        """Nothing: the address stands above the lines."""

    def show(self, figures: DemoSnapshot) -> None:
        """Print the figures if a second is over or something new begins."""
        if figures.phase.name == self._phase and figures.elapsed_s < self._next_s:
            return
        self._phase, self._next_s = figures.phase.name, figures.elapsed_s + PLAIN_EVERY_S
        self._console.print(line(figures), markup=False, highlight=False, soft_wrap=True)


def line(figures: DemoSnapshot) -> str:
    """The figures in one line."""
    return (
        f"{figures.elapsed_s:5.1f}s  {figures.phase.name:<19}  provider {figures.at_provider:>4}"
        f"  ledger {shown(figures.by_webhook):>4} by webhook {shown(figures.by_list):>3} by list"
        f"  consumer {figures.at_consumer:>4}  missing {figures.missing:>3}  complete up to {moment(figures)}"
    )


class LiveDisplay:
    """The live view; it remembers how much was missing, to draw it."""

    def __init__(self, live: Live, script: PhasePlan) -> None:
        self._live = live
        self._script = script
        self._address = ""
        self._missing: deque[int] = deque(maxlen=BAR_WIDTH)

    def open(self, address: str) -> None:
        """Begin to draw."""
        self._address = address
        self._live.start()

    def show(self, figures: DemoSnapshot) -> None:
        """Draw these figures."""
        self._live.update(self.of(figures))

    def close(self) -> None:
        """Give the terminal back."""
        self._live.stop()

    def of(self, figures: DemoSnapshot) -> Padding:
        """The view of these figures."""
        self._missing.append(figures.missing)
        return Padding(Group(self._heading(figures), "", self._timeline(figures), "", self._counts(figures)), (1, 2))

    def _heading(self, figures: DemoSnapshot) -> Text:
        length = "" if figures.length_s is None else f" of {figures.length_s:.0f} s"
        clock = f"{figures.elapsed_s:.0f} s{length}" if figures.phase is not CLOSING else "closing the gap"
        return Text.assemble(("gapless demo", "bold"), f"  {clock}   console ", (self._address, "bold cyan underline"))

    def _timeline(self, figures: DemoSnapshot) -> Text:
        phases = [phase for _, phase in self._script.phases] + [CLOSING]
        now = phases.index(figures.phase)
        words = Text()
        for place, phase in enumerate(phases):
            style = "dim" if place < now else "bold reverse" if place == now else "default"
            words.append(" → " if place else "", "dim")
            words.append(f" {phase.name} " if place == now else phase.name, style)
        return words

    def _counts(self, figures: DemoSnapshot) -> Table:
        table = Table.grid(padding=(0, 2))
        table.add_column(min_width=24)
        table.add_column(justify="right", min_width=5)
        table.add_column()
        most = max(figures.at_provider, 1)
        table.add_row("at the provider", str(figures.at_provider), bar(figures.at_provider, most, "blue"))
        table.add_row(
            "in the ledger by webhook", shown(figures.by_webhook), bar(figures.by_webhook or 0, most, "green")
        )
        table.add_row("in the ledger by list", shown(figures.by_list), bar(figures.by_list or 0, most, "yellow"))
        table.add_row("at the consumer", str(figures.at_consumer), bar(figures.at_consumer, most, "green"))
        style = "bold red" if figures.missing else "bold green"
        table.add_row(
            Text("missing right now", style), Text(str(figures.missing), style), Text(sparkline(self._missing), style)
        )
        table.add_row("")
        table.add_row("complete up to", "", _proof(figures))
        table.add_row("duplicates absorbed", shown(figures.duplicates))
        table.add_row("requests to the provider", str(figures.requests))
        table.add_row("daemon", "", _daemon(figures))
        return table


def _proof(figures: DemoSnapshot) -> Text:
    behind = "" if figures.behind_s is None else f"  ({figures.behind_s:.0f} s ago)"
    return Text.assemble((moment(figures), "bold"), (behind, "dim"))


def _daemon(figures: DemoSnapshot) -> Text:
    if figures.daemon_runs:
        return Text("running", "green")
    return Text("killed (SIGKILL): no webhook is received", "bold red")


def bar(count: int, most: int, style: str) -> Text:
    """A bar as long as `count` is of `most`."""
    return Text("━" * round(BAR_WIDTH * min(count, most) / most), style)


def sparkline(samples: deque[int]) -> str:
    """The samples as a row of blocks; the largest is the highest."""
    most = max(*samples, 1) if samples else 1
    return "".join(SPARKS[-(-sample * (len(SPARKS) - 1) // most)] for sample in samples)


def shown(count: int | None) -> str:
    """The count; "?" while it is unknown."""
    return "?" if count is None else str(count)


def moment(figures: DemoSnapshot) -> str:
    """The time up to which all is proven complete, as local time of day; "?" while it is unknown."""
    return "?" if figures.complete_up_to is None else f"{figures.complete_up_to.astimezone():%H:%M:%S}"
