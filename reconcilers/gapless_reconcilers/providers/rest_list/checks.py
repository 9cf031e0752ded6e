"""Refuses declarations that could not work, or would miss events unnoticed, before any request is sent."""

import math
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Final

import httpx

from gapless_reconcilers.kit.contract import Order
from gapless_reconcilers.kit.errors import OptionsInvalid
from gapless_reconcilers.providers.rest_list import pages, places
from gapless_reconcilers.providers.rest_list.credentials import ClientCredentials, Header, NoCredentials, RefreshToken
from gapless_reconcilers.providers.rest_list.events import EventFields
from gapless_reconcilers.providers.rest_list.handshakes import Handshake
from gapless_reconcilers.providers.rest_list.hmacs import HmacSignature
from gapless_reconcilers.providers.rest_list.options import ListOptions, RestListOptions, WebhookOptions

NOTHING_THERE: Final = frozenset(range(400, 500)) - {401, 403, 408, 425, 429}
"""Statuses that can mean that there are no events."""
REFUSALS: Final = range(400, 600)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_INDEX: Final = re.compile(r"\[[^\]]")
_TEMPLATE: Final = re.compile(r"[^{}]*(?:\{[^{}]+\}[^{}]*)*")


def check(options: RestListOptions, placeholders: list[str]) -> None:
    """Raise `OptionsInvalid` for the first problem. `placeholders` are those in the list's parameters."""
    for problem in _problems(options, placeholders):
        raise OptionsInvalid(f"option {problem}")
    if options.webhook is not None:
        options.webhook.signature.check()
        if options.webhook.handshake is not None:
            options.webhook.handshake.check()
            _check_macs(options.webhook, options.webhook.handshake)


def _check_macs(webhook: WebhookOptions, handshake: Handshake) -> None:
    """Raise `OptionsInvalid` if what the handshake signs for whoever asks could pass for a signature of a webhook."""
    signature = webhook.signature
    is_text_alone = isinstance(signature, HmacSignature) and not signature.signs_body
    if handshake.makes_macs and (webhook.form or is_text_alone) and not handshake.signed:
        raise OptionsInvalid(
            "option webhook.handshake.answer has an HMAC of a challenge, with which a stranger could sign such "
            "webhooks; let it be signed, or leave the handshake out"
        )


def _problems(options: RestListOptions, placeholders: list[str]) -> Iterator[str]:
    if options.list is None:
        yield from _push_only(options)
    else:
        yield from _address(options, options.list)
        yield from _list(options.list, placeholders)
    yield from _numbers(options)
    yield from _names(options)


def _push_only(options: RestListOptions) -> Iterator[str]:
    """Check a vendor without a list: what nobody uses is a mistake."""
    if options.webhook is None:
        yield "webhook is missing and list is too: nothing would ever come; declare one of them"
    if options.base_url or options.auth != NoCredentials():
        yield 'base_url or auth is set, and there is no list to ask for; leave both out, or say auth.type = "none"'


def _address(options: RestListOptions, listed: ListOptions) -> Iterator[str]:
    """Check the addresses to which credentials are sent."""
    if not options.base_url:
        yield "base_url: missing required field `base_url`, the address of the vendor's API, because there is a list"
    try:
        base = httpx.URL(options.base_url)
    except httpx.InvalidURL:
        base = httpx.URL("")
    if base.scheme not in ("https", "http") or not base.host or base.userinfo or base.query or base.fragment:
        yield "base_url is no plain address; wanted one like https://api.vendor.example/v1, without ?, # and password"
    paths = {"list.path": listed.path}
    if isinstance(options.auth, ClientCredentials | RefreshToken):
        paths["auth.token_path"] = options.auth.token_path
    for name, path in paths.items():
        if not path.startswith("/") or "?" in path or "#" in path or "{" in path:
            yield f"{name} is {path!r}; wanted a path that begins with /, its parameters in list.params"


def _numbers(options: RestListOptions) -> Iterator[str]:
    zero = timedelta(0)
    if not 0 < options.rate < math.inf:
        yield f"rate is {options.rate}; wanted requests a second, more than 0"
    if options.least_interval < zero or (options.grant is not None and options.grant.period <= zero):
        yield "least_interval is negative, or grant.period is nothing; wanted a duration such as 1m"
    errors = options.errors
    for status in errors.ignore:
        if status not in NOTHING_THERE:
            yield f"errors.ignore has {status}, which does not mean that there are no events; use retry or throttled"
    for status in (*errors.retry, *errors.throttled, *errors.expired):
        if status not in REFUSALS:
            yield f"errors has {status}, which refuses nothing; wanted statuses from 400 to 599"


def _names(options: RestListOptions) -> Iterator[str]:
    webhook, listed = options.webhook, options.list
    yield from _fields("event", options.event)
    if listed is not None:
        yield from _listed_fields(options.event)
    if webhook is not None:
        yield from _webhook(webhook)
    for header in _headers(options):
        if not _TOKEN.fullmatch(header):
            yield f"{header!r} is no name of a header"
    if listed is not None and any(name.lower() in ("authorization", "cookie") for name in listed.headers):
        yield "list.headers holds a credential; use auth, whose secret is in a variable or file"


def _webhook(webhook: WebhookOptions) -> Iterator[str]:
    if webhook.event is not None:
        yield from _fields("webhook.event", webhook.event)
    yield from _root(webhook)
    if not all(webhook.unlisted):
        yield "webhook.unlisted has an empty text, with which every key begins"
    for status in webhook.refusals:
        if status not in range(400, 500):
            yield f"webhook.refusals has {status}; wanted statuses from 400 to 499"
    for place in webhook.ignore:
        if not places.is_expression(place):
            yield f"webhook.ignore has {place!r}; wanted a path, or header:<name>"


def _headers(options: RestListOptions) -> Iterator[str]:
    """Yield the name of each header that is read or sent."""
    yield from options.list.headers if options.list else ()
    if isinstance(options.auth, Header):
        yield options.auth.name
    if options.webhook is not None:
        signature = options.webhook.signature
        yield from signature.headers
        yield from signature.twins
        for _, expression in options.pushed.expressions():
            yield from (name for name, _ in places.headers_of(expression))


def _fields(table: str, event: EventFields) -> Iterator[str]:
    for name, expression in event.expressions():
        if not expression or not places.is_expression(expression):
            yield f"{table}.{name} is {expression!r}; wanted a path, or a text with whole paths in braces"


def _listed_fields(event: EventFields) -> Iterator[str]:
    """Check that a row of the list has what is read there."""
    for name, expression in event.expressions():
        if places.reads_request(expression) or places.RECEIVED in expression.split(" | "):
            yield f"event.{name} is {expression!r}, which no row of a list has; say it in webhook.event"


def _root(webhook: WebhookOptions) -> Iterator[str]:
    """Check that the path of the events leads to all of them: an index would drop the others behind a 2xx."""
    if _INDEX.search(webhook.root):
        yield (
            f"webhook.root is {webhook.root!r}, which takes one element and drops the others; write [] for each "
            'element and set many = true, such as root = "notifications[].entities"'
        )
    elif "[]" in webhook.root and not webhook.many:
        yield f"webhook.root is {webhook.root!r} and many is false; set many = true: [] stands for each of an array"


def _list(listed: ListOptions, placeholders: list[str]) -> Iterator[str]:
    yield from _spans(listed)
    yield from _parameters(listed, placeholders)
    for name in ("records", "item"):
        if "[" in getattr(listed, name):
            yield f"list.{name} is {getattr(listed, name)!r}: an index takes one element and drops the others"
    if listed.json is not None and isinstance(listed.page, pages.NextUrlPage | pages.LinkHeaderPage):
        yield "list.page names addresses, which cannot be requested by POST; use a cursor"


def _spans(listed: ListOptions) -> Iterator[str]:
    zero = timedelta(0)
    if listed.grace < zero or (listed.history is not None and listed.history <= zero):
        yield "list.grace or list.history is negative or nothing; wanted a duration such as 90d"
    if listed.resolution <= zero:
        yield "list.resolution is nothing; wanted the unit of the vendor's filter, such as 1s"


def _parameters(listed: ListOptions, placeholders: list[str]) -> Iterator[str]:
    for each in placeholders:
        if not pages.is_known(each):
            yield f"list has {{{each}}} in its parameters; use {pages.ALLOWED}"
        elif listed.resolution % pages.unit_of(each):
            yield f"list.resolution is finer than {{{each}}} can say; wanted whole {pages.unit_of(each)}"
    if not placeholders and listed.order is not Order.NEWEST_FIRST:
        yield (
            f'list names no time and list.order is "{listed.order}": each pass would read all that there is; '
            'name {window.start|…} in list.params, or ask for the newest first and say list.order = "newest_first"'
        )
    if any(True for _ in pages.placeholders(listed.headers)):
        yield "list.headers has braces; moments are filled in list.params and list.json alone"
    if any(True for _ in pages.placeholders(listed.other_cuts)) or not all(listed.other_cuts):
        yield "list.other_cuts has braces or an empty table; wanted parameters such as { limit = 50 }"
