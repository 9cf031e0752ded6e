"""The deliver road: what is owed goes to its destination until it arrives.

A Python target imports `Delivery` and `Reject` from here.
"""

from gapless.destinations.contract import Delivery, Reject

__all__ = ["Delivery", "Reject"]
