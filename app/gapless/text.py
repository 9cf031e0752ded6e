"""Times and lengths of time as people read them, on a terminal and in messages."""

from datetime import datetime, timedelta

UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def span(value: timedelta) -> str:
    """A length of time in its two largest units: `15d`, `5m24s`."""
    rest, parts = int(value.total_seconds()), list[str]()
    for unit, seconds in UNITS:
        count, rest = divmod(rest, seconds)
        parts.append(f"{count}{unit}" if count else "")
    first = next((place for place, part in enumerate(parts) if part), len(parts) - 1)
    return "".join(parts[first : first + 2]) or "0s"


def shown(value: object) -> str:
    """A cell: unknown is said to be unknown, never 0."""
    if value is None:
        return "unknown"
    if isinstance(value, timedelta):
        return span(value)
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%SZ")
    return str(value)
