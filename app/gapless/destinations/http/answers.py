"""The meaning of an HTTP answer. Pure.

Answers and results:

    2xx                            delivered
    400, 410, 413, 414, 415, 422   dead at once: the consumer has read it and will never take it
    429                            again, not before `Retry-After`
    3xx                            again: a redirect is not followed, its target may be moved or mended
    other 4xx                      again: 401, 403, 404 and 405 are what a bad deployment answers with
    5xx                            again, not before `Retry-After`
"""

from gapless.destinations.contract import Delivered, Failed, FailureReason, Result

PERMANENT = frozenset({400, 410, 413, 414, 415, 422})
THROTTLED = 429


def read_status(status: int, retry_after_us: int = 0) -> Result:
    """Return the result that a consumer's answer stands for."""
    told = f"HTTP {status}"
    match status // 100:
        case 2:
            return Delivered(detail=told)
        case 3:
            return Failed(reason=FailureReason.REDIRECT, detail=f"{told}: not followed; set url to where it leads")
        case 4:
            reason = FailureReason.THROTTLED if status == THROTTLED else FailureReason.CONSUMER_4XX
            return Failed(reason=reason, detail=told, permanent=status in PERMANENT, retry_after_us=retry_after_us)
        case _:
            return Failed(reason=FailureReason.CONSUMER_5XX, detail=told, retry_after_us=retry_after_us)
