"""Delivers events to their destinations, and retries until they arrive.

A Python target imports `Delivery` and `Reject` from here.
"""

from gapless.destinations.contract import Delivery, Reject

__all__ = ["Delivery", "Reject"]
