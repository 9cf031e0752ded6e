"""The rate limit of one destination, as a bucket of tokens. Pure."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Tokens that are there at `at_us`; at most one second's worth, and at least one, is kept."""

    per_second: float
    tokens: float
    at_us: int

    def __post_init__(self) -> None:
        if not self.per_second > 0:
            raise ValueError(f"rate is {self.per_second}; wanted more than 0 a second, or none for no limit")


def full(per_second: float, now_us: int) -> Bucket:
    """A bucket with all the tokens that it can hold."""
    return Bucket(per_second=per_second, tokens=max(per_second, 1.0), at_us=now_us)


def filled(bucket: Bucket, now_us: int) -> Bucket:
    """The bucket at `now_us`. A clock that went back brings nothing."""
    gained = max(now_us - bucket.at_us, 0) * bucket.per_second / 1_000_000
    tokens = min(bucket.tokens + gained, max(bucket.per_second, 1.0))
    return Bucket(per_second=bucket.per_second, tokens=tokens, at_us=now_us)


def taken(bucket: Bucket, count: int) -> Bucket:
    """The bucket without `count` tokens."""
    return Bucket(per_second=bucket.per_second, tokens=bucket.tokens - count, at_us=bucket.at_us)


def next_token_us(bucket: Bucket) -> int:
    """How long until there is a whole token."""
    return int(max(1.0 - bucket.tokens, 0.0) / bucket.per_second * 1_000_000) + 1
