"""Delivers to an async callable inside this process.

It runs on the daemon's event loop: one that blocks, blocks everything. What it raises means "again";
`Reject` means "never".
"""

import inspect
import logging
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, TypeAlias

from gapless.deliver.delivery import Delivered, Delivery, Failed, Reject, Result
from gapless.deliver.destinations.base import DestinationInvalid
from gapless.ledger.deliveries import Reason

Target: TypeAlias = Callable[[Delivery], Awaitable[object]]

log = logging.getLogger(__name__)


class PythonCarrier:
    """Brings events to the callable `target`, written `module:function`. Raises `DestinationInvalid`."""

    def __init__(self, name: str, target: str) -> None:
        self._name = name
        self._call = resolve(name, target)

    async def send(self, delivery: Delivery) -> Result:
        """Call once."""
        try:
            await self._call(delivery)
        except Reject as rejected:
            return Failed(reason=Reason.REJECTED, detail=str(rejected), permanent=True)
        except Exception as error:
            extra = {"destination": self._name, "event_key": delivery.key}
            log.warning("target_raised", extra=extra, exc_info=True)
            return Failed(reason=Reason.CONSUMER_ERROR, detail=f"{type(error).__name__}: {error}")
        return Delivered()

    async def close(self) -> None:
        """Nothing is held."""


def resolve(name: str, target: str) -> Target:
    """The async callable that `target` names. Raises `DestinationInvalid`."""
    told = f'destination "{name}": target is "{target}"'
    module_name, colon, path = target.partition(":")
    if not (module_name and colon and path):
        raise DestinationInvalid(f"{told}; wanted module:function")
    try:
        found: Any = import_module(module_name)
    except Exception as error:
        raise DestinationInvalid(f"{told}; importing {module_name} raised {type(error).__name__}: {error}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise DestinationInvalid(f"{told}; {module_name} has no {path}")
        found = getattr(found, part)
    if not _is_async(found):
        raise DestinationInvalid(f"{told}, which is no async callable; write it as: async def {path}(delivery)")
    call: Target = found
    return call


def _is_async(found: object) -> bool:
    return inspect.iscoroutinefunction(found) or (callable(found) and inspect.iscoroutinefunction(type(found).__call__))
