"""The durable record of events, and the only place where receiving, reconciling and delivering meet.

Statements are functions of a `Connection`, one per statement, in the module of their noun. `engine`
holds every difference between the databases; `writer` is the one writer of a process; `recorder`
turns sightings into rows.
"""

from sqlalchemy import Connection

__all__ = ["Connection"]
