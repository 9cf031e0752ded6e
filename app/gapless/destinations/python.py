"""Delivers to an async callable inside this process.

The callable runs on the daemon's event loop: if it blocks, it blocks everything. If it raises, the delivery is
retried; if it raises `Reject`, it is not. If it returns True, it has applied the event.
"""

import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeAlias

from msgspec import Meta

from gapless import masking
from gapless.destinations.contract import (
    Delivered,
    Delivery,
    DestinationInvalid,
    DestinationOptions,
    Failed,
    FailureReason,
    Reject,
    Result,
    SenderContext,
)

Target: TypeAlias = Callable[[Delivery], Awaitable[object]]

log = logging.getLogger(__name__)


class PythonOptions(DestinationOptions, frozen=True, kw_only=True):
    """The keys of a destination of type `python`."""

    target: Annotated[
        str,
        Meta(
            pattern=r"\A[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*\Z",
            description="module:function",
        ),
    ] = ""
    """The async callable that receives each delivery. Required."""
    folder: str = ""
    """The folder that has the module of `target`. Empty: the module is an installed one."""

    @property
    def address(self) -> str:
        """The callable's name."""
        return self.target

    def problems(self) -> Iterator[str]:
        """Yield a sentence for each problem of the options."""
        if not self.target:
            yield 'option target is missing; wanted module:function, or type = "http" with a url'


class PythonSender:
    """Calls the configured target with each event. Raises `DestinationInvalid` if there is no such callable."""

    kind: ClassVar[str] = "python"
    Options: ClassVar[type[PythonOptions]] = PythonOptions

    def __init__(self, options: PythonOptions, context: SenderContext) -> None:
        self._name = context.name
        self._sources = context.sources
        self._call = resolve(context.name, options.target, options.folder)

    async def send(self, delivery: Delivery) -> Result:
        """Call the target once."""
        try:
            answer = await self._call(delivery)
        except Reject as rejected:
            detail = masking.scrubbed(str(rejected), delivery.payload, self._mask_of(delivery))
            return Failed(reason=FailureReason.REJECTED, detail=detail, permanent=True)
        except Exception as raised:
            mask = self._mask_of(delivery)
            extra = {"destination": self._name, "event_key": delivery.key}
            log.warning("target_raised", extra=extra, exc_info=masking.scrubbed_error(raised, delivery.payload, mask))
            detail = masking.scrubbed(f"{type(raised).__name__}: {raised}", delivery.payload, mask)
            return Failed(reason=FailureReason.CONSUMER_ERROR, detail=detail)
        return Delivered(applied=answer is True)

    def _mask_of(self, delivery: Delivery) -> tuple[str, ...]:
        return next((each.mask for each in self._sources if each.name == delivery.source), ())

    async def close(self) -> None:
        """Do nothing: there are no connections."""


def resolve(name: str, target: str, folder: str = "") -> Target:
    """Return the async callable that `target` names, in an installed module or one in `folder`.

    The folder comes last on the import path, so that nothing in it can take the place of a module of Python or of a
    library. Raises `DestinationInvalid`.
    """
    option = f'destination "{name}": target is "{target}"'
    module_name, colon, path = target.partition(":")
    if not (module_name and colon and path):
        raise DestinationInvalid(f"{option}; wanted module:function")
    if folder:
        _add_to_path(name, folder)
    try:
        found: Any = import_module(module_name)
    except Exception as error:
        hint = "" if folder else "; if the module is not installed, name its folder: folder = …"
        message = f"importing {module_name} raised {type(error).__name__}: {error}"
        raise DestinationInvalid(f"{option}; {message}{hint if _is_absent(error) else ''}") from error
    for part in path.split("."):
        if not hasattr(found, part):
            raise DestinationInvalid(f"{option}; {module_name} has no {path}")
        found = getattr(found, part)
    if not _is_async(found):
        raise DestinationInvalid(f"{option}, which is no async callable; write it as: async def {path}(delivery)")
    call: Target = found
    return call


def _add_to_path(name: str, folder: str) -> None:
    place = Path(folder).resolve()
    if not place.is_dir():
        raise DestinationInvalid(f'destination "{name}": folder is "{folder}"; there is no such folder')
    if str(place) not in sys.path:
        sys.path.append(str(place))


def _is_absent(error: Exception) -> bool:
    return isinstance(error, ModuleNotFoundError)


def _is_async(found: object) -> bool:
    return inspect.iscoroutinefunction(found) or (callable(found) and inspect.iscoroutinefunction(type(found).__call__))


SENDER = PythonSender
