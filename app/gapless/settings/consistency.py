"""What must hold between options that are each fine by themselves. Every rule yields sentences."""

import difflib
import ipaddress
from collections.abc import Iterator, Sequence

from gapless.domain import Mode
from gapless.settings.tree import DestinationSettings, PaceStrategy, PrivateSettings, PublicSettings, SourceSettings


def is_loopback(host: str) -> bool:
    """True if only this machine can reach `host`: `localhost`, `127.0.0.0/8` and `::1`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.")


def listener_problems(public: PublicSettings, private: PrivateSettings) -> Iterator[str]:
    """The two listeners must not meet, and the private one must be private."""
    if not is_loopback(private.host) and private.token is None:
        yield (
            f'private: option host is "{private.host}", which others can reach; '
            "set token_env or token_file, or bind 127.0.0.1"
        )
    if public.port == private.port != 0:
        yield f"private: option port is {private.port}, as in public; wanted another one"


def source_problems(source: SourceSettings) -> Iterator[str]:
    """The options of one source must fit each other."""
    if source.pace is PaceStrategy.ADAPTIVE and source.every > source.every_max:
        yield 'option every is longer than every_max; raise every_max, or set pace = "interval"'
    if source.mode is Mode.WEBHOOK and source.read_budget is not None:
        yield 'option read_budget is given, but mode "webhook" never reads; leave it out, or choose hybrid'


def destination_problems(destination: DestinationSettings, sources: Sequence[str]) -> Iterator[str]:
    """The options of one destination must fit each other, and the sources that exist."""
    yield from destination.options.problems()
    if destination.backoff_first > destination.backoff_max:
        yield "option backoff_first is longer than backoff_max; wanted it to be shorter, or equal"
    for name in destination.sources:
        if name != "*" and name not in sources:
            near = difflib.get_close_matches(name, sources, n=1)
            hint = f'did you mean "{near[0]}"?' if near else f"there are: {', '.join(sources) or 'none'}"
            yield f'option sources names "{name}", which is no source; {hint}'


def duplicate_names(names: Sequence[str], kind: str) -> Iterator[str]:
    """A name stands for one thing."""
    yield from (
        f'{kind} "{name}" is defined twice; rename one' for name in sorted({n for n in names if names.count(n) > 1})
    )
