"""What stands in braces in a list's parameters: a closed set of moments in a closed set of formats."""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from gapless_reconcilers.kit.contract import Window

MOMENTS: Final = ("window.start", "window.before_start", "window.end")
FORMATS: Final = ("unix_s", "unix_ms", "rfc3339")
ALLOWED: Final = f"{{<moment>|<format>}} of {', '.join(MOMENTS)} and {', '.join(FORMATS)}"

_BRACES: Final = re.compile(r"\{([^{}]*)\}")


def fill(value: Any, window: Window, resolution: timedelta) -> Any:
    """`value`, a text or a table or list of texts, with every moment written out.

    `window.before_start` lies one unit of `resolution` before the start: for a bound that the vendor leaves out.
    """
    if isinstance(value, Mapping):
        return {key: fill(inner, window, resolution) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [fill(inner, window, resolution) for inner in value]
    if not isinstance(value, str):
        return value
    whole = _BRACES.fullmatch(value)
    if whole is not None:
        return _written(whole[1], window, resolution)
    return _BRACES.sub(lambda match: str(_written(match[1], window, resolution)), value)


def placeholders(value: Any) -> Iterator[str]:
    """What stands in braces anywhere in `value`."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from placeholders(inner)
    elif isinstance(value, str):
        yield from _BRACES.findall(value)


def is_known(placeholder: str) -> bool:
    """Whether `placeholder` is one of those that are filled."""
    moment, _, form = placeholder.partition("|")
    return moment in MOMENTS and form in FORMATS


def unit_of(placeholder: str) -> timedelta:
    """The shortest time that the placeholder's format can tell."""
    return timedelta(seconds=1) if placeholder.endswith("|unix_s") else timedelta(milliseconds=1)


def _written(placeholder: str, window: Window, resolution: timedelta) -> int | str:
    moment, _, form = placeholder.partition("|")
    moments = {
        "window.start": window.start,
        "window.before_start": window.start - resolution,
        "window.end": window.end,
    }
    return _format(moments[moment], form)


def _format(at: datetime, form: str) -> int | str:
    if form == "unix_s":
        return int(at.timestamp())
    if form == "unix_ms":
        return int(at.timestamp()) * 1000 + at.microsecond // 1000
    return at.isoformat(timespec="milliseconds" if at.microsecond else "seconds").replace("+00:00", "Z")
