"""How many events came with one signed message, where the vendor's signature does not cover the event's identity.

Whoever has seen such a webhook can send it again under any identity. So the second identity of one message is marked as
repeated, which vendors do have reason for (one body for two topics), and beyond `MOST` none is recorded.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection

from gapless.ledger.engine import dialect
from gapless.ledger.tables import SIGNED_MESSAGE

MOST = 8
"""Most events that are recorded of one signed message: a vendor sends one body for a few topics, and no more."""

EventKey = tuple[int, str]
"""(source id, event key): the identity of an event."""


@dataclass(slots=True)
class Repetition:
    """The new events of a batch that are not the first of their message."""

    repeated: set[EventKey] = field(default_factory=set)
    """Another event came with the same message before."""
    beyond: set[EventKey] = field(default_factory=set)
    """`MOST` others did."""


def judge(connection: Connection, digests: Mapping[EventKey, bytes]) -> Repetition:
    """Count the new events `digests` {identity: digest of its message}; return which are not the first of theirs."""
    of_message: defaultdict[tuple[int, bytes], list[EventKey]] = defaultdict(list)
    for identity, digest in digests.items():
        of_message[identity[0], digest].append(identity)
    rows = [(*message, len(of_message[message])) for message in sorted(of_message)]
    judged = Repetition()
    for source_id, digest, total in dialect.add_up_and_return(
        connection, SIGNED_MESSAGE, ("source_id", "digest", "identities"), rows
    ):
        identities = of_message[source_id, bytes(digest)]
        for number, identity in enumerate(identities, total - len(identities) + 1):
            if number > MOST:
                judged.beyond.add(identity)
            elif number > 1:
                judged.repeated.add(identity)
    return judged
