"""The pages of passes: what was read, when next, at what cost; and one pass with its progress."""

from dataclasses import dataclass
from typing import Any, Final

from litestar import Response, get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gapless.console.api import cursors
from gapless.console.api.passes import NOUN, PassDetail, PassItem, item, read_pass
from gapless.console.api.shared import PAGE, AnyRequest, chosen_sources
from gapless.console.auth import Area
from gapless.console.pages.asking import Asking
from gapless.console.pages.rendering import Site, page
from gapless.console.routing import guarded
from gapless.ledger import pass_search

OPEN_SHOWN: Final = 20
REFRESH_S: Final = 2
OUTCOMES: Final = {
    None: ("hand", "running"),
    "clean": ("good", "clean"),
    "found": ("good", "found"),
    "superseded": ("idle", "superseded"),
    "cancelled": ("idle", "cancelled"),
    "contradicted": ("unknown", "contradicted"),
    "suspect_listing": ("unknown", "suspect listing"),
    "unexpected_shape": ("unknown", "unexpected shape"),
}
"""Class and words of an outcome; every other one is an error."""
WIDTH: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A slice as it is drawn."""

    x: int
    css: str
    words: str


def pass_pages(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes."""
    context = site.context

    @get("/passes", guards=[guarded(Area.READ)], include_in_schema=False)
    async def passes(request: AnyRequest) -> Response[Any]:
        """Show what was read."""
        asking = Asking(request)
        sources = chosen_sources(request, asking.text("source"))
        running = [item(each) for each in await context.read(pass_search.open_passes, sources, OPEN_SHOWN)]
        outcome = asking.text("outcome")
        found = await context.read(
            pass_search.page,
            sources=sources,
            outcome=None if outcome is None else outcome.replace("\0", ""),
            found_only=asking.choice("found", ["yes"]) == "yes",
            after=cursors.decode(NOUN, asking.text("after")),
            limit=PAGE,
        )
        return await page(
            site,
            request,
            "passes.html",
            active="passes",
            asking=asking,
            asked=asking.in_force("source", "outcome", "found"),
            running=running,
            items=[item(each) for each in found.rows],
            next=cursors.encode(NOUN, found.after),
            complete=found.is_full,
            outcomes=[each for each in OUTCOMES if each is not None],
            state_of=state_of,
            refresh_s=REFRESH_S if running and not asking.text("after") else 0,
        )

    @get("/passes/{number:int}", guards=[guarded(Area.READ)], include_in_schema=False)
    async def one(request: AnyRequest, number: FromPath[int]) -> Response[Any]:
        """Show one pass."""
        shown = await read_pass(request, context, number)
        return await page(
            site,
            request,
            "pass.html",
            active="passes",
            shown=shown,
            parts=parts_of(shown),
            state_of=state_of,
            refresh_s=REFRESH_S if shown.item.state == "running" else 0,
        )

    return [passes, one]


def state_of(each: PassItem) -> tuple[str, str]:
    """Return (class, words) of how a pass ended, or that it goes on."""
    if each.state == "failed":
        return "trouble", "given up"
    if each.outcome is None and each.attempts:
        return "hand", "failed, tried again"
    return OUTCOMES.get(each.outcome, ("trouble", (each.outcome or "").replace("_", " ")))


def parts_of(shown: PassDetail) -> list[Part]:
    """Return the slices as they are drawn."""
    classes = {"done": "done", "reading": "run", "open": "wait"}
    return [
        Part(x=at * WIDTH, css=classes[each.state], words=f"{each.start:%Y-%m-%d %H:%M}: {each.state}")
        for at, each in enumerate(shown.slices)
    ]
