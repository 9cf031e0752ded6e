"""Telegram bots: updates by webhook, or by `getUpdates`, which deletes what was read; never both at a time.

Source: Telegram's Bot API page, "Getting updates" and "setWebhook", read November 2026. NV: not verified.
"""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Final

import httpx
import msgspec
from httpx import codes

from gapless_reconcilers.kit import statuses
from gapless_reconcilers.kit.auth import PathAuth
from gapless_reconcilers.kit.contract import (
    EARLIEST,
    LATEST,
    NO_EVIDENCE,
    Account,
    Basis,
    Batch,
    CannotRender,
    Capabilities,
    Coverage,
    Evidence,
    Order,
    Reading,
    RecordedEvent,
    Remedy,
    RemoteEvent,
    Rendering,
    Reply,
    Secret,
    Subscription,
    WebhookMessage,
    WebhookRequest,
)
from gapless_reconcilers.kit.decoders import (
    decode_json,
    decode_or_none,
    decode_response,
    decode_webhook,
    last_readable,
    peek,
    read_rows,
    recordable,
)
from gapless_reconcilers.kit.errors import (
    CredentialsRejected,
    OptionsInvalid,
    RateLimited,
    SignatureInvalid,
    UnexpectedShape,
)
from gapless_reconcilers.kit.signatures import SigningKeys, is_same

SIGNATURE_HEADER: Final = "x-telegram-bot-api-secret-token"
PLACEHOLDER: Final = "TOKEN"
"""The text instead of the token in every address that is built here."""
MOST_PER_BATCH: Final = 100
LONGEST_WAIT: Final = timedelta(seconds=25)
"""Shorter than the engine's timeout for a response."""


PERSONAL_DATA: Final = (
    "/message", "/edited_message", "/channel_post", "/edited_channel_post", "/inline_query", "/chosen_inline_result",
    "/callback_query", "/shipping_query", "/pre_checkout_query", "/business_message", "/edited_business_message",
)  # fmt: skip
"""NV: what people write, and who they are."""


class TelegramOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One bot."""

    token: Secret
    """The bot's token, from BotFather."""
    webhook_secret: tuple[Secret, ...] = ()
    """The `secret_token` of the webhook. Empty: no webhook is accepted (`mode = "poll"`)."""
    allowed_updates: tuple[str, ...] = ()
    """Types of update to request; empty: Telegram's default, which omits some."""
    api_base: str = "https://api.telegram.org"
    """The address of the API; another value for a local Bot API server, or a fake."""


class _Dated(msgspec.Struct, gc=False):
    date: Annotated[int, msgspec.Meta(ge=int(EARLIEST.timestamp()), lt=int(LATEST.timestamp()))] | None = None


class _Update(msgspec.Struct, gc=False):
    update_id: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _Result(msgspec.Struct, gc=False):
    ok: bool
    result: list[msgspec.Raw]


class _Wait(msgspec.Struct, gc=False):
    retry_after: Annotated[int, msgspec.Meta(ge=0)] | None = None


class _Refusal(msgspec.Struct, gc=False):
    parameters: _Wait | None = None


class _Bot(msgspec.Struct, gc=False):
    id: int


class _Me(msgspec.Struct, gc=False):
    result: _Bot


class _Webhook(msgspec.Struct, gc=False):
    url: str
    pending_update_count: int
    last_error_message: str = ""
    allowed_updates: tuple[str, ...] | None = None


class _WebhookInfo(msgspec.Struct, gc=False):
    result: _Webhook


class Telegram:
    """Telegram, for one bot. The key of an update is its `update_id`, by webhook and by `getUpdates`."""

    kind: ClassVar[str] = "telegram"
    Options: ClassVar[type[TelegramOptions]] = TelegramOptions
    capabilities: Capabilities = Capabilities(
        coverage=Coverage.EVENT_LOG,
        basis=Basis.VENDOR_DOCS,
        reading=Reading.CONSUME,
        order=Order.OLDEST_FIRST,
        history=timedelta(hours=24),
        grace=timedelta(0),
        exact_times=False,  # many kinds of update have no date: the time of arrival is used
        remedy=Remedy.LIST,
        rendering=Rendering.EXACT,
        signs_body=False,
        signature_headers=(SIGNATURE_HEADER,),
        requests_per_second=20,  # NV: for reading no limit is published
        personal_data=PERSONAL_DATA,
        unproven=(
            "Updates can be read only while no webhook is set, and are gone once they were acknowledged: by webhook "
            "alone nothing can be proven. A webhook carries a secret and no signature."
        ),
    )

    def __init__(self, options: TelegramOptions) -> None:
        self.options = options
        self._keys = SigningKeys(options.webhook_secret)

    def auth(self) -> httpx.Auth:
        """Return the token as a part of the path, where Telegram expects it."""
        return PathAuth(self.options.token, PLACEHOLDER)

    def budget_scope(self) -> str:
        """Return one scope for all: no requests are counted."""
        return "telegram"

    def account_request(self) -> httpx.Request:
        """`getMe`."""
        return self._call("getMe")

    def read_account(self, response: httpx.Response) -> Account:
        """Return the bot's id."""
        return Account(fingerprint=str(decode_response(response, _Me).result.id))

    def read_webhook(self, request: WebhookRequest, now: datetime, evidence: Evidence = NO_EVIDENCE) -> Reply:  # noqa: ARG002
        """Return the one update of a webhook."""
        token = request.required(SIGNATURE_HEADER)
        if not any(is_same(key, token.encode("latin-1")) for key in self._keys):
            raise SignatureInvalid("the secret token is none that we know; check webhook_secret")
        update = decode_webhook(request.body, _Update)
        return Reply(events=(recordable(None, _event, update, request.body, now),))

    def claimed_keys(self, request: WebhookRequest) -> tuple[str, ...]:
        """Return the key that an unverified webhook claims."""
        update = peek(request.body, _Update)
        return () if update is None else (str(update.update_id),)

    def carried_secrets(self) -> Mapping[str, tuple[str, ...]]:
        """Return the secret tokens that a webhook may carry."""
        return {SIGNATURE_HEADER: tuple(each.reveal() for each in self.options.webhook_secret)}

    def render(
        self,
        event: RecordedEvent,
        target_url: str,  # noqa: ARG002
        secret: Secret,
        now: datetime,  # noqa: ARG002
    ) -> WebhookMessage | CannotRender:
        """Return the update as received, with the secret token."""
        return WebhookMessage(
            headers={"content-type": "application/json", SIGNATURE_HEADER: secret.reveal()}, body=event.payload
        )

    def batch_request(self, cursor: str | None, wait: timedelta) -> httpx.Request:
        """`getUpdates` from the update after the last one that was read, which acknowledges all before it."""
        seconds = int(min(wait, LONGEST_WAIT).total_seconds())
        params: dict[str, Any] = {"limit": MOST_PER_BATCH, "timeout": seconds}
        if cursor is not None:
            params["offset"] = cursor
        if self.options.allowed_updates:
            params["allowed_updates"] = msgspec.json.encode(self.options.allowed_updates).decode()
        return self._call("getUpdates", **params)

    def read_batch(self, response: httpx.Response, now: datetime) -> Batch:
        """Return the updates, oldest first, and the offset that acknowledges them."""
        rows = decode_response(response, _Result)
        if not rows.ok:
            raise UnexpectedShape("ok", "false", "true")
        found = read_rows("result", rows.result, _Update, lambda update, row: _event(update, row, now))
        last = last_readable(rows.result, _Update)
        if last is None and rows.result:
            raise UnexpectedShape("result", "without an update_id that can be read", "one, to acknowledge the updates")
        cursor = None if last is None else str(last.update_id + 1)
        return Batch(events=found.events, cursor=cursor, unreadable=found.unreadable)

    def subscription_request(self) -> httpx.Request:
        """`getWebhookInfo`."""
        return self._call("getWebhookInfo")

    def read_subscription(self, response: httpx.Response, webhook_url: str) -> Subscription:
        """Return the webhook that is set; it is unhealthy if updates wait after an error."""
        webhook = decode_response(response, _WebhookInfo).result
        if not webhook.url:
            return Subscription(healthy=False, reason="no webhook is set; see setWebhook")
        if not webhook.url.endswith(httpx.URL(webhook_url).path):
            return Subscription(
                healthy=False, reason="the webhook that is set has another path than ours", id=webhook.url
            )
        if webhook.last_error_message and webhook.pending_update_count:
            reason = (
                f"{webhook.pending_update_count} updates wait; the last error was {webhook.last_error_message[:200]!r}"
            )
            return Subscription(healthy=False, reason=reason, id=webhook.url)
        return Subscription(healthy=True, reason="", id=webhook.url, types=webhook.allowed_updates)

    def judge(self, response: httpx.Response, now: datetime) -> None:
        """Raise the default errors, but 404 is a wrong token, and 409 a webhook or other reader that prevents it."""
        if response.status_code == codes.CONFLICT:
            message = "updates cannot be read while a webhook is set, or somebody else reads them"
            raise OptionsInvalid(f'{message}; set mode = "webhook", or call deleteWebhook')
        if response.status_code == codes.NOT_FOUND:
            raise CredentialsRejected("Telegram knows no bot of this token; check it")
        refusal = decode_or_none(response.content, _Refusal)
        wait = refusal.parameters if refusal else None
        if response.status_code == codes.TOO_MANY_REQUESTS and wait and wait.retry_after:
            seconds = min(timedelta(seconds=wait.retry_after), statuses.LONGEST_WAIT)
            raise RateLimited("Telegram asks us to slow down", retry_after=seconds)
        statuses.judge(response, now)

    def _call(self, method: str, **params: Any) -> httpx.Request:
        base = self.options.api_base.rstrip("/")
        return httpx.Request("GET", f"{base}/bot{PLACEHOLDER}/{method}", params=params or None)


def _event(update: _Update, payload: bytes | msgspec.Raw, now: datetime) -> RemoteEvent:
    """Build the event, for webhooks and `getUpdates` alike. Its type is the name of the update's other field."""
    fields = decode_json(payload, dict[str, msgspec.Raw], "")
    kinds = [name for name in fields if name != "update_id"]
    kind = kinds[0] if kinds else "unknown"
    return RemoteEvent(
        key=str(update.update_id), type=kind, occurred_at=_when(fields.get(kind)) or now, payload=payload
    )


def _when(content: msgspec.Raw | None) -> datetime | None:
    dated = decode_or_none(content, _Dated) if content is not None else None
    return None if dated is None or dated.date is None else datetime.fromtimestamp(dated.date, UTC)


PROVIDER = Telegram
