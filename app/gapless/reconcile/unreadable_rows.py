"""Keep the rows of a page that cannot be read, or refuse the page. What is odd is judged by `odd_rows`."""

import logging

from gapless.ledger import unreadable
from gapless.ledger.streams import Stream
from gapless.reconcile import odd_rows
from gapless.reconcile.context import LeasedSource
from gapless_reconcilers.kit.contract import Page
from gapless_reconcilers.kit.errors import UnexpectedShape

log = logging.getLogger(__name__)


async def set_aside(
    leased: LeasedSource, stream: Stream, page: Page, times: odd_rows.Times, *, before: int
) -> int | UnexpectedShape:
    """Keep the unreadable rows of `page`. Return how many are new, or the error if they are too many for odd ones.

    `before`: the new ones of the same pass so far.
    """
    keys = [unreadable.key_of(row.digest) for row in page.unreadable]
    states = await leased.runtime.read(unreadable.states, source_id=leased.source.id, keys=keys)
    found = odd_rows.judge(page, states, times, before=before)
    if found.refusal is not None:
        return found.refusal
    rows = [
        unreadable.OddRow(
            source_id=leased.source.id,
            stream_id=stream.id,
            key=unreadable.key_of(row.digest),
            row=row.row,
            problem=row.problem,
            occurred_us=start_us,
            until_us=until_us,
        )
        for row, (start_us, until_us) in found.rows
    ]
    await leased.write(unreadable.set_aside, rows=rows, now_us=leased.runtime.now_us)
    if found.new:
        extra = {"source": leased.source.name, "stream": stream.name, "count": found.new, "error": rows[0].problem}
        log.warning("rows_unreadable", extra=extra)
    is_open = await leased.runtime.read(unreadable.count_open, stream_id=stream.id)
    return odd_rows.refuse_open(is_open) or found.new
