"""Every setting: its meaning, its unit, how to switch it off, and why the default is what it is.

The tree is frozen. `load` makes it once; the command line passes it down. `setting` gives each attribute the parser of
its TOML value and of the text of its environment variable.
"""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import datetime, timedelta
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any, TypeVar, cast

from gapless.condition import Condition
from gapless.destinations import registry
from gapless.destinations.contract import DestinationOptions
from gapless.domain import EventMode, Mode, Order, Release, Silence, Via
from gapless.settings import parsers
from gapless.settings.parsers import OptionParser
from gapless.settings.secrets import SecretRef
from gapless_reconcilers.kit.contract import Capabilities, Grant, Secret

T = TypeVar("T")

NAME_PATTERN = r"(?=.{1,40}\Z)[a-z0-9]+(-[a-z0-9]+)*"
_NAME = parsers.text("1 to 40 of a-z, 0-9 and single dashes between them", NAME_PATTERN)
_HTTP_URL = parsers.text(
    "an http:// or https:// address without a user name or a fragment",
    r"https?://[^\s/@?#]+(/[^\s#]*)?(\?[^\s#]*)?",
    shown=False,
)
_STORE_URL = parsers.text(
    "sqlite:///path or postgresql://host/database", r"sqlite:///\S+|postgres(ql)?://\S+", shown=False
)
_TYPES = parsers.many(
    parsers.text("an event type", r"[^\s*,]*\*?(?<!^)", shown=True),
    "event types such as invoice.paid, invoice.* or *",
    least=1,
)
_NETWORKS = parsers.many(parsers.network(), "networks such as 203.0.113.0/24 or 2001:db8::/32, without host bits")
_SOME_NETWORKS = parsers.many(
    parsers.network(), "networks such as 203.0.113.0/24 or 2001:db8::/32, without host bits, at least one", least=1
)
_SECOND = timedelta(seconds=1)
_TENTH = timedelta(milliseconds=100)


class PaceStrategy(StrEnum):
    """The rule for the time to the next pass."""

    ADAPTIVE = "adaptive"
    INTERVAL = "interval"
    LONG_POLL = "long_poll"


class LogLevel(StrEnum):
    """The least severe records that are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """The form of a log line."""

    CONSOLE = "console"
    JSON = "json"


class OnVersionMismatch(StrEnum):
    """The fate of an event whose payload has another API version than the endpoint."""

    HOLD = "hold"
    DELIVER = "deliver"


class Confirmation(StrEnum):
    """What makes a delivery done."""

    ANSWER = "answer"
    RECEIPT = "receipt"


def setting(parser: OptionParser[T], default: object = MISSING) -> T:
    """Return an attribute read by `parser`; `default` is a TOML value. Without one the key is required."""
    if default is MISSING:
        return cast("T", field(metadata={"parser": parser}))
    return field(default=parser.read(default), repr=parser.shown, metadata={"parser": parser})


def optional(parser: OptionParser[T]) -> T | None:
    """Return an attribute read by `parser`, or None while the key is absent."""
    return cast("T | None", field(default=None, repr=parser.shown, metadata={"parser": parser}))


def secret(default: SecretRef | None = None, literal: OptionParser[str] | None = None, *, is_many: bool = False) -> Any:
    """Return a secret: keys `<name>_env` and `<name>_file`; with `literal`, the key itself too, without a password.

    `is_many`: it may have several lines, each a secret.
    """
    return field(default=default, metadata={"secret": True, "literal": literal, "is_many": is_many})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """`[store]`: the ledger."""

    url: SecretRef = secret(SecretRef(value=Secret("sqlite:///gapless.db")), _STORE_URL)
    """Address of the ledger. One SQLite file beside the process needs no set-up; PostgreSQL is for replicas.

    An address with a password goes into a variable (`url_env`) or a file (`url_file`)."""
    min_free: int = setting(parsers.size(), "256MB")
    """Least free bytes on the disk of a SQLite ledger; below it, webhooks are answered 503. 0: off.

    The default holds a checkpoint of a busy write-ahead log with room to spare."""
    connect_within: timedelta = setting(parsers.duration(_TENTH), "5s")
    """Time that opening a connection to PostgreSQL may take. A server in the same region answers in milliseconds."""
    command_within: timedelta = setting(parsers.duration(_TENTH), "10s")
    """Time that one statement on PostgreSQL may take; then its connection is dropped. Webhooks get 503 meanwhile.

    Far above what any statement takes, and short enough that silent connections are replaced soon."""
    start_within: timedelta = setting(parsers.duration(), "1m")
    """Time for which a daemon that starts waits for PostgreSQL; then it ends with exit code 3. 0s: it does not wait.

    A server that is started together with the daemon, or recovers from a crash, is usually ready within a minute."""
    connections: int = setting(parsers.count(3, 1000, "connections"), 12)
    """Most connections of one process to PostgreSQL: one writes, one listens, the others read.

    Ten readers serve every part of a busy process; the sum over all processes must stay below `max_connections`."""
    audit_key: SecretRef | None = secret()
    """Key of the audit log's chain, the same for all processes. Absent: a file beside SQLite, none on PostgreSQL.

    It belongs where those who can write to the database cannot read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncryptionSettings:
    """`[encryption]`: payloads and kept headers are sealed before they are stored, if there are keys."""

    keys: SecretRef | None = secret(is_many=True)
    """Keys, one a line: an id, a colon and 64 hex digits. The first seals, all open. Absent: nothing is sealed.

    A file is read again when it changes; a key that a row still needs is not given up."""
    seals: bool = setting(parsers.flag(), default=True)
    """`false`: new payloads are stored in the clear, and the keys only open what is sealed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSettings:
    """`[public]`: the listener that providers call."""

    host: str = setting(parsers.text("an address or a host name", r"[^\s/]+"), "0.0.0.0")  # noqa: S104 - its purpose
    """Address to bind. All interfaces, because receiving is what this listener is for."""
    port: int = setting(parsers.count(0, 65535, "a TCP port"), 8000)
    """TCP port; 0 takes a free one."""
    answer_within: timedelta = setting(parsers.duration(_TENTH), "4s")
    """Time from a webhook's last byte to its answer: durable by then, or 503. Some vendors wait five seconds."""
    body_limit: int = setting(parsers.size(), "1MB")
    """Most bytes of one webhook's body; more is answered 413. Stripe's largest events stay under 256 kB."""
    queue_max: int = setting(parsers.count(1, 1_000_000, "webhooks"), 10_000)
    """Most webhooks that wait for a commit; beyond that the answer is 503, which the provider retries."""
    queue_max_bytes: int = setting(parsers.size(), "64MB")
    """Most bytes of webhooks that come in or wait for a commit: what a burst may cost in memory."""
    certificate: Path | None = optional(parsers.path())
    """PEM file with the certificate of this listener and those between it and its root. Absent: no TLS.

    It is read again when it changes; connections that are open stay open."""
    certificate_key: Path | None = optional(parsers.path())
    """PEM file with the key of the certificate, without a password. Absent: `certificate` has it too."""
    client_ca: Path | None = optional(parsers.path())
    """PEM file with the authorities of clients: each must show a certificate of one of them. Absent: none need one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivateSettings:
    """`[private]`: probes, metrics, API and pages."""

    host: str = setting(parsers.text("an address or a host name", r"[^\s/]+"), "127.0.0.1")
    """Address to bind. Loopback, because pages and API show payments; binding wider needs a `token`."""
    port: int = setting(parsers.count(0, 65535, "a TCP port"), 8001)
    """TCP port; 0 takes a free one."""
    token: SecretRef | None = secret()
    """Bearer token for API and pages. Required unless `host` is a loopback address."""
    metrics_token: SecretRef | None = secret()
    """Bearer token for `/metrics`. Without it `/metrics` is open to all who reach the listener."""
    consumer_token: SecretRef | None = secret()
    """Bearer token that handlers send with their receipts. It opens `/api/v1/receipts` and nothing else."""
    second_person_above: int | None = optional(parsers.count(1, 1_000_000_000, "events"))
    """Most events that one request may replay, requeue, release, discard or dismiss; above it, another must approve.

    Absent: nobody is asked. It stops a mistake, and not somebody who splits his request."""
    stream_clients: int = setting(parsers.count(1, 5_000, "listeners"), 64)
    """Most listeners of the live stream; further ones are answered 503.

    Each may hold 100 kB, and one with payloads that is behind a megabyte. Fewer than `connections.private`, so that
    probes and pages are answered while all are taken."""
    certificate: Path | None = optional(parsers.path())
    """PEM file with the certificate of this listener and those between it and its root. Absent: no TLS.

    It is read again when it changes; connections that are open stay open. Commands on this machine still reach the
    daemon, by a listener of their own."""
    certificate_key: Path | None = optional(parsers.path())
    """PEM file with the key of the certificate, without a password. Absent: `certificate` has it too."""
    client_ca: Path | None = optional(parsers.path())
    """PEM file with the authorities of clients: each must show a certificate of one of them. Absent: none need one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """`[oidc]`: people sign in to the console with an account of their own, at a provider of OpenID Connect."""

    issuer: str | None = optional(_HTTP_URL)
    """Address of the provider, exactly as its tokens name it. Absent: only tokens open the console."""
    client_id: str | None = optional(parsers.text("the id of the client"))
    """Our id at the provider. Required with `issuer`."""
    client_secret: SecretRef | None = secret()
    """Our secret at the provider; a client without one is protected by PKCE alone."""
    url: str | None = optional(_HTTP_URL)
    """Address of the console as browsers reach it, without a path. Required with `issuer`.

    The provider must know `<url>/login/oidc/callback` as an address to lead back to."""
    operators: tuple[str, ...] = setting(parsers.many(parsers.text("a group"), "groups"), [])
    """Groups whose members are operators."""
    viewers: tuple[str, ...] = setting(parsers.many(parsers.text("a group"), "groups"), [])
    """Groups whose members are viewers. Who is in none of the groups does not come in."""
    groups_claim: str = setting(parsers.text("the name of a claim"), "groups")
    """The claim that has the groups of a person."""
    name_claim: str = setting(parsers.text("the name of a claim"), "email")
    """The claim that names a person in the audit log; without it, or if it is no verified address, `sub` does."""
    scopes: tuple[str, ...] = setting(
        parsers.many(parsers.text("a scope", r"\S+"), "scopes"), ["openid", "email", "profile"]
    )
    """The scopes that are asked for. Some providers want `groups` among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """`[connections]`: what a connection to a listener may cost, before anything of a request is believed."""

    public: int = setting(parsers.count(16, 100_000, "connections"), 1_000)
    """Most connections of the public listener; fewer if the process may not open so many descriptors.

    Beyond it, the one that has waited longest for its peer is closed. While its head comes in, each may cost 100 kB."""
    private: int = setting(parsers.count(16, 10_000, "connections"), 100)
    """Most connections of the private listener. Its own, so that probes are answered while the public one is full."""
    per_address: int = setting(parsers.count(1, 100_000, "connections"), 500)
    """Most connections of one client address (of IPv6, of one /64), and never more than three quarters of a listener.

    A vendor that sends from one address, or a proxy that is not named, stays below it by far."""
    proxies: tuple[IPv4Network | IPv6Network, ...] = setting(_NETWORKS, [])
    """Addresses and networks of the proxies in front of Gapless. They have no cap; the clients that they name have."""
    proxy_header: str = setting(parsers.text("the name of a header", r"[A-Za-z0-9-]{1,64}"), "X-Forwarded-For")
    """Header in which a proxy names the client. Believed of `proxies` alone."""
    head_limit: int = setting(parsers.size(least=4096), "32KiB")
    """Most bytes of a request line with its headers; more is answered 431, or 414 for the URL alone.

    No vendor sends a tenth of it."""
    head_within: timedelta = setting(parsers.duration(_TENTH), "10s")
    """Time in which a connection sends the first byte of a request, and from there the rest of its head."""
    body_starts_within: timedelta = setting(parsers.duration(_TENTH), "10s")
    """Time from the end of the head to the first byte of the body."""
    body_within: timedelta = setting(parsers.duration(_TENTH), "30s")
    """Time from the first byte of a body to the last. Vendors send theirs at once."""
    idle_within: timedelta = setting(parsers.duration(_TENTH), "65s")
    """Time for which a connection stays open between two requests.

    Longer than the minute after which most proxies close theirs, so that none sends into a closed connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """`[retention]`: how long payloads, attempts, deliveries and passes are kept. Events are never pruned."""

    payloads: timedelta | None = setting(parsers.duration_or_off(timedelta(hours=1)), "90d")
    """Age at which payloads are pruned, never while a delivery still owes one. "off": kept for ever.

    The default outlasts every provider's retries and most disputes; the event itself stays."""
    attempts: timedelta | None = setting(parsers.duration_or_off(timedelta(hours=1)), "30d")
    """Age at which attempts are pruned, whatever became of their delivery. "off": kept for ever.

    The default is long enough for an inquiry."""
    attempts_per_delivery: int = setting(parsers.count(20, 10_000, "attempts"), 100)
    """Most attempts kept of one delivery, the newest. It may be tried more often: each requeue begins anew."""
    deliveries: timedelta | None = setting(parsers.duration_or_off(timedelta(hours=1)), "90d")
    """Age at which finished deliveries are pruned. "off": kept for ever. As `payloads`: a replay needs both."""
    passes: timedelta | None = setting(parsers.duration_or_off(timedelta(hours=1)), "30d")
    """Age at which finished passes are pruned. "off": kept for ever. What they found stays in the counts."""
    clean_passes: timedelta | None = setting(parsers.duration_or_off(timedelta(hours=1)), "1d")
    """Age at which scheduled passes that found nothing are pruned. "off": kept as `passes` says.

    A source that is read every 30 seconds makes 86,000 of them in a month."""
    audit_log: timedelta | None = setting(parsers.duration_or_off(timedelta(days=1)), "off")
    """Age at which rows of the audit log are pruned, in whole days. "off": kept for ever.

    It is small, and proves who did what; auditors ask for a year or more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarantineSettings:
    """`[quarantine]`: refused webhooks, kept with the reason. Bounded, because anybody can send them."""

    max_rows: int = setting(parsers.count(0, 1_000_000, "rows"), 10_000)
    """Most webhooks kept per source; beyond it, some of the most frequent reason and sender are purged. 0: off."""
    max_bytes: int = setting(parsers.size(), "64MB")
    """Most bytes kept per source; beyond it, some of the reason and the sender with most bytes are purged. 0: off."""
    per_minute: int = setting(parsers.count(0, 100_000, "webhooks per minute"), 60)
    """Most webhooks kept per source, reason and minute; the rest is only counted. 0: off. Enough to see the cause.

    One sender has half of it."""
    max_age: timedelta | None = setting(parsers.duration_or_off(timedelta(hours=1)), "7d")
    """Age at which the content of a refused webhook is deleted. "off": never. Time enough to correct a secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`[log]`: records go to stderr."""

    level: LogLevel = setting(parsers.choice(LogLevel), "info")
    """Least severe records written. `info` is one line per webhook and per pass."""
    format: LogFormat = setting(parsers.choice(LogFormat), "console")
    """`console` for people, `json` for collectors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadBudgetSettings:
    """`[source.read_budget]`: how many reads the vendor grants, when it is not the provider's default."""

    requests: int = setting(parsers.count(1, 1_000_000_000, "requests"))
    """Read requests that `period` may hold."""
    period: timedelta = setting(parsers.duration(_SECOND))
    """The time over which the vendor counts them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """`[[source]]`: one account of a provider."""

    name: str = setting(_NAME)
    """Path of its webhooks, label of its metrics. Renaming is explicit: `gapless source rename`."""
    provider: str = setting(parsers.text("a provider's name such as stripe", r"[a-z][a-z0-9_]{0,39}"))
    """Kind of the provider: a module of `gapless_reconcilers`, or an installed one."""
    mode: Mode = setting(parsers.choice(Mode), "hybrid")
    """`hybrid`: webhooks and passes; `webhook`: no passes; `poll`: passes only. Hybrid alone proves anything."""
    start: datetime | None = setting(parsers.moment(), "now")
    """Events before it are never missed and never owed. "now" (None): the time of the first start with this source.

    A first start must not flood consumers with history."""
    types: tuple[str, ...] | None = optional(_TYPES)
    """Event types that the subscription should push. Absent: the subscription as read, else all."""
    pace: PaceStrategy = setting(parsers.choice(PaceStrategy), "adaptive")
    """`adaptive`: between `every` and `every_max`, as events come and the grant allows; `interval`: always `every`.

    `long_poll`: the next request at once, because the provider holds it until there is an event (Telegram)."""
    every: timedelta | None = optional(parsers.duration(_SECOND))
    """Time between passes; the shortest time when adaptive. Absent: 30 s, or what the vendor asks for at least."""
    every_max: timedelta = setting(parsers.duration(_SECOND), "15m")
    """Longest time between passes when adaptive. Only a grant that cannot pay for it lengthens it."""
    lookback: timedelta = setting(parsers.duration(), "15m")
    """Time before the watermark that is read again, to find events that became visible late. "0s": off.

    A pass reaches so far back when half of that time has passed since the last that did; the others, by the grace."""
    sweep: timedelta | None = setting(parsers.duration_or_off(timedelta(minutes=1)), "1d")
    """Time between sweeps, the deeper passes behind the lookback. "off": none, and later events there stay unseen.

    Sweeps take a fifth of what may be used of the grant, and are rarer if that is short."""
    grace: timedelta | None = optional(parsers.duration())
    """Time that an event may take to appear in the list. Absent: the provider's own value."""
    slices: int = setting(parsers.count(1, 64, "slices"), 4)
    """Slices of one pass that are listed at the same time, within the rate. 1: one after the other."""
    requests_per_second: float | None = optional(parsers.rate("requests"))
    """Most list requests per second. Absent: the provider's own value, under the vendor's limit."""
    request_within: timedelta = setting(parsers.duration(_SECOND), "60s")
    """Time for one request to the provider, to the last byte of its answer. Twice what a long poll may take."""
    body_limit: int | None = optional(parsers.size())
    """Most bytes of one webhook's body; more is answered 413. Absent: the most that the vendor sends, else
    `public.body_limit`."""
    allow_from: tuple[IPv4Network | IPv6Network, ...] | None = optional(_SOME_NETWORKS)
    """Networks from which webhooks are taken; from others the answer is 403. Absent: from everywhere.

    It asks for the address of the client behind `connections.proxies`."""
    read_budget: ReadBudgetSettings | None = field(default=None, metadata={"section": ReadBudgetSettings})
    """Reads that the vendor grants in a period. Absent: the provider's own value."""
    keep_unsubscribed: bool = setting(parsers.flag(), default=False)
    """Record what is listed but not expected. Off, because in a shared account it is most of the traffic."""
    absences_allowed: int = setting(parsers.count(0, 1_000_000, "events"), 0)
    """Webhook events that the list of one stream may lack. Above it the watermark stays before the first of them.

    0, because no built-in provider is known to leave events out; raise it only where the vendor says that it does."""
    silence_after: Silence | None = optional(parsers.silence())
    """Time without a webhook after which the source counts as silent: it alerts, and is read more often.

    "learn": from its traffic in each hour of the week, once three weeks are known. Absent: never silent."""
    repair: bool = setting(parsers.flag(), default=False)
    """Switch our endpoint on again when the provider has switched it off. Off, because it may have been intended."""
    share_account: bool = setting(parsers.flag(), default=False)
    """Allow another source on the same account. Off, because it is nearly always one key pasted twice."""
    mask: tuple[str, ...] = setting(
        parsers.many(
            parsers.text('a JSON pointer such as /data/object/card, or "default"', r"(/[^/]*)+|default"),
            'JSON pointers, or "default"',
        ),
        ["default"],
    )
    """Values of events that no person and no log sees. `*` stands for each item. Deliveries get them as they came.

    "default" stands for the personal and card data that the provider is known to send, so that nobody has to begin
    with a list; `[]` shows everything."""
    options: Mapping[str, object] = field(default_factory=dict, repr=False, metadata={"options": True})
    """`[source.options]`: the provider's own options, read-only. Secrets are named here, not resolved."""

    def effective_mask(self, known: Capabilities) -> tuple[str, ...]:
        """Return the JSON pointers to what is masked, with those of the provider in the place of "default"."""
        return tuple(
            dict.fromkeys(one for each in self.mask for one in (known.personal_data if each == "default" else (each,)))
        )

    def effective_grant(self, known: Capabilities) -> Grant | None:
        """Return the grant that the configured read budget names, else the provider's; None: nothing is published."""
        own = self.read_budget
        if own is None:
            return known.effective_grant
        return Grant(requests=own.requests, period=own.period, source="read_budget")


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationSettings:
    """`[[destination]]`: where events go."""

    name: str = setting(_NAME)
    """Label of its metrics, key of its deliveries."""
    type: str = field(
        default="http", metadata={"parser": parsers.word(registry.kinds, "a type of destination such as http")}
    )
    """The kind of destination: `http` posts to `url`, `python` awaits `target`; installed packages can add kinds."""
    sources: tuple[str, ...] = setting(
        parsers.many(parsers.text("a source", rf"{NAME_PATTERN}|\*"), "names of sources, or *", least=1), ["*"]
    )
    """Names of the sources whose events are sent here; `*`: all of them."""
    types: tuple[str, ...] = setting(_TYPES, ["*"])
    """Event types that are sent here."""
    when: Condition | None = optional(parsers.condition())
    """Condition on the payload of the events that are sent here, a JMESPath expression. Absent: there is none.

    What it cannot judge is held for a person: a destination misses nothing because of a mistake in it."""
    via: tuple[Via, ...] = setting(
        parsers.many(parsers.choice(Via), f"words out of {', '.join(Via)}", least=1), ["webhook", "list", "redelivery"]
    )
    """Ways of recording whose events are sent. `["list"]` fills the gaps of a handler that keeps its own webhook.

    Imported events were processed before Gapless was installed, so they are not owed unless named."""
    modes: tuple[EventMode, ...] | None = optional(
        parsers.many(parsers.choice(EventMode), f"words out of {', '.join(EventMode)}", least=1)
    )
    """Modes of the events that are sent here. Absent: each source's own, so that no test event is taken for a real one.

    Events of a provider without modes are always sent."""
    since: datetime | None = setting(parsers.moment(), "now")
    """Only events that occurred at or after this time are owed. "now" (None): the time of the first start with it."""
    paused: bool = setting(parsers.flag(), default=False)
    """`true`: it is paused when it is first registered, so that nothing is sent before `gapless destination resume`.

    From then on only that command and `gapless destination pause` count."""
    delay: timedelta = setting(parsers.duration(), "0s")
    """Time that an event found by a pass waits before it is sent, so that its webhook can come first. "0s": off."""
    require_listed: bool = setting(parsers.flag(), default=False)
    """`true`: an event that came by webhook is sent once the provider's list has shown it.

    Nobody who can send webhooks can then make this destination do anything, at the price of the time until the list is
    read. Off by default, because most events would come later. What no list shows waits for a person."""
    receipts: bool = setting(parsers.flag(), default=False)
    """`true`: the handler has a webhook of its own and reports what it has processed, to `/api/v1/receipts`.

    Then it is owed what it has not reported after `delay`, whichever way we learnt of it."""
    hydrate: bool = setting(parsers.flag(), default=False)
    """`true`: the data of thin events, which only name what happened, is fetched before they are sent.

    Off by default, because each attempt costs a request of the grant, and shows the event as it is by then."""
    confirm: Confirmation = setting(parsers.choice(Confirmation), "answer")
    """What makes a delivery done: `answer`, a 2xx; or `receipt`, the consumer's word that it has applied the event.

    A receipt is sent to `/api/v1/receipts`, or is the header `gapless-applied: true` of the answer. By default a 2xx is
    enough, because few consumers send receipts."""
    receipt_within: timedelta = setting(parsers.duration(_SECOND), "5m")
    """Time after a 2xx in which the receipt must come, or the event is sent again. For `confirm = "receipt"`.

    The default is longer than the jobs of most consumers take."""
    receipt_attempts: int = setting(parsers.count(1, 1000, "attempts"), 5)
    """2xx without a receipt after which a delivery is a dead letter, `unconfirmed`. For `confirm = "receipt"`."""
    order: Order = setting(parsers.choice(Order), "none")
    """`object`: a later event of an object waits until the earlier one is delivered. `none`: none waits.

    Off by default: where an event fails, those of its object after it wait. An event without an object is never
    ordered."""
    release: Release = setting(parsers.choice(Release), "recorded")
    """`proven`: an event is sent once the provider's list proves that nothing earlier of its source is missing.

    They are sent in order of occurrence, one after the other of each source, or with `order` of each object. That costs
    the time until the list was read beyond the grace, so it is off by default."""
    order_skips_dead: bool = setting(parsers.flag(), default=False)
    """`true`: a dead letter does not keep what comes after it in its order. `false`: it waits for a person."""
    concurrency: int = setting(parsers.count(1, 1024, "deliveries"), 8)
    """Deliveries at the same time. The default spares a small handler, and allows 80 a second at 100 ms each."""
    rate: float | None = optional(parsers.rate("deliveries"))
    """Most deliveries per second. Absent: no limit but `concurrency`."""
    timeout: timedelta = setting(parsers.duration(timedelta(milliseconds=100)), "15s")
    """Time in which an attempt must be answered. The default is a little more than most providers allow."""
    max_attempts: int = setting(parsers.count(1, 1000, "attempts"), 15)
    """Attempts after which a delivery is a dead letter. By default after 9 hours on average, 17 at most."""
    backoff_first: timedelta = setting(parsers.duration(timedelta(milliseconds=1)), "5s")
    """Longest wait before the second attempt; it doubles with each further one, with full jitter."""
    backoff_max: timedelta = setting(parsers.duration(timedelta(milliseconds=1)), "6h")
    """Longest wait between two attempts."""
    waits: tuple[timedelta, ...] = setting(parsers.many(parsers.duration(_TENTH), "durations such as 5s, 5m, 2h"), [])
    """The waits between attempts in place of the back-off, in order; the last is repeated. []: the back-off."""
    max_age: timedelta | None = optional(parsers.duration(_SECOND))
    """Time from its first attempt after which a delivery is a dead letter. Absent: only `max_attempts` counts.

    Pauses do not count: deliveries do not age while nobody tries them."""
    on_version_mismatch: OnVersionMismatch = setting(parsers.choice(OnVersionMismatch), "hold")
    """For payloads of another API version than the endpoint's: `hold` them until a person decides, or `deliver`."""
    options: DestinationOptions = field(default_factory=DestinationOptions, repr=False)
    """The keys that only its type has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. `Settings()` equals an empty file."""

    public_url: str | None = optional(_HTTP_URL)
    """Public base URL of the webhooks, without a path. Finds our endpoint in a subscription; absent: by path alone."""
    stop_within: timedelta = setting(parsers.duration(_SECOND), "10s")
    """Time in which the daemon ends after SIGTERM, whatever it waits for. As long as `docker stop` waits.

    What is under way and not finished by then is cut; everything acknowledged is durable already."""
    include: tuple[str, ...] = setting(parsers.many(parsers.text("a path"), "paths such as sources.d/*.toml"), [])
    """Further files, relative to this one, with `[[source]]` and `[[destination]]` only."""
    store: StoreSettings = field(default_factory=StoreSettings, metadata={"section": StoreSettings})
    encryption: EncryptionSettings = field(default_factory=EncryptionSettings, metadata={"section": EncryptionSettings})
    public: PublicSettings = field(default_factory=PublicSettings, metadata={"section": PublicSettings})
    private: PrivateSettings = field(default_factory=PrivateSettings, metadata={"section": PrivateSettings})
    oidc: OidcSettings = field(default_factory=OidcSettings, metadata={"section": OidcSettings})
    connections: ConnectionSettings = field(
        default_factory=ConnectionSettings, metadata={"section": ConnectionSettings}
    )
    retention: RetentionSettings = field(default_factory=RetentionSettings, metadata={"section": RetentionSettings})
    quarantine: QuarantineSettings = field(default_factory=QuarantineSettings, metadata={"section": QuarantineSettings})
    log: LogSettings = field(default_factory=LogSettings, metadata={"section": LogSettings})
    sources: tuple[SourceSettings, ...] = field(default=(), metadata={"named": "source"})
    destinations: tuple[DestinationSettings, ...] = field(default=(), metadata={"named": "destination"})


NAMED: Mapping[str, type[SourceSettings] | type[DestinationSettings]] = {
    "source": SourceSettings,
    "destination": DestinationSettings,
}
"""The tables that may appear several times, each with a name."""


def sections_of(cls: type[Any]) -> dict[str, type[Any]]:
    """Return the tables inside the table `cls`."""
    return {f.name: f.metadata["section"] for f in fields(cls) if "section" in f.metadata}


def keys_of(cls: type[Any]) -> Iterator[str]:
    """Yield every key of the table `cls`, except its sections."""
    for f in fields(cls):
        yield from keys_of_field(f)


def keys_of_field(f: Field[Any]) -> tuple[str, ...]:
    """Return the keys that `f` is read from; a secret has two or three."""
    if "secret" in f.metadata:
        literal = (f.name,) if f.metadata["literal"] else ()
        return (*literal, f"{f.name}_env", f"{f.name}_file")
    return (f.name,) if "parser" in f.metadata else ()
