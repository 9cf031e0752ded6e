"""Every error that crosses the provider contract, named by what the caller should do.

    ProviderError
    ├── WebhookRefused(reason, status)      answer `status`, count `reason`, record nothing
    │   ├── SignatureInvalid                401: not signed by the vendor with a secret that we know
    │   └── MalformedWebhook                400: it cannot be read, signed or not
    ├── Retryable(retry_after)              wait and try again; the watermark does not move
    │   ├── RateLimited                     the vendor asked us to slow down
    │   └── ProviderUnavailable             network, 5xx, 408, 425
    ├── NeedsOperator                       park the stream or the source and alert; the others go on
    │   ├── CredentialsRejected             401, 403
    │   ├── OptionsInvalid                  404, 410, or a configuration that cannot work
    │   └── HistoryExpired                  the vendor no longer lists the requested time
    └── UnexpectedShape(path)               abandon the pass, keep the watermark and alert; never an empty page

Any other exception from a provider is a bug of ours.
"""

from datetime import timedelta


class ProviderError(Exception):
    """Base of all errors of the contract. Messages never contain a secret or a payload."""


class WebhookRefused(ProviderError):
    """The webhook is answered with `status` and counted under `reason`; nothing is recorded.

    `reason` is a closed, low-cardinality word (it becomes a metric label); `detail` is for people.
    """

    status = 400
    reason = "refused"

    def __init__(self, detail: str, *, reason: str | None = None, status: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if reason is not None:
            self.reason = reason
        if status is not None:
            self.status = status


class SignatureInvalid(WebhookRefused):
    """No signature of the webhook was made with a secret that we know."""

    status = 401
    reason = "signature"


class MalformedWebhook(WebhookRefused):
    """The webhook cannot be read: headers, encoding, JSON or a required field."""

    status = 400
    reason = "malformed"


class Retryable(ProviderError):
    """The same request may succeed later, after `retry_after` if the vendor named a time."""

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(Retryable):
    """The vendor asked us to slow down."""


class ProviderUnavailable(Retryable):
    """The vendor, or the network on the way to it, is down for now."""


class NeedsOperator(ProviderError):
    """Only a person can repair this; retrying would only repeat it."""


class CredentialsRejected(NeedsOperator):
    """The read key is wrong, revoked, or lacks a permission."""


class OptionsInvalid(NeedsOperator):
    """The configuration names something that the vendor does not have, or cannot work at all."""


class HistoryExpired(NeedsOperator):
    """The vendor no longer lists the requested time."""


class UnexpectedShape(ProviderError):
    """A response does not have the documented shape. `path` is the field, such as `data` or `data[3].id`."""

    def __init__(self, path: str, got: str, wanted: str) -> None:
        super().__init__(f"{path} is {got}; wanted {wanted}")
        self.path, self.got, self.wanted = path, got, wanted

    def inside(self, place: str) -> "UnexpectedShape":
        """Return the same error with `place`, the position of the part in the whole, before its path."""
        return UnexpectedShape(f"{place}.{self.path}" if place else self.path, self.got, self.wanted)
