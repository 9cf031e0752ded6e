"""The amount and the currency that an event names, by JSON pointers per type. Pure; exact, never a float.

Amounts stay as the vendor gives them: in the currency's smallest unit or in the currency itself, which `Unit` tells. An
event whose type has no pointers, or that lacks a value there, names no amount: it is never taken for 0.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from gapless.domain import TypePatterns
from gapless.masking import parse

MOST_DIGITS: Final = 30
"""Digits before or after the point beyond which a number is no amount."""
CURRENCY_LETTERS: Final = 3


class Unit(StrEnum):
    """The unit of a vendor's amounts."""

    MINOR = "minor"
    """The smallest unit of the currency: cents."""
    MAJOR = "major"
    """The currency itself, such as 12.50."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoneyPointers:
    """Where events of these types have their amount and its currency."""

    types: tuple[str, ...]
    amount: str
    currency: str
    unit: Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """An exact amount. `currency` is in capitals."""

    amount: Decimal
    currency: str
    unit: Unit


def _stripe(amount: str, *types: str) -> MoneyPointers:
    return MoneyPointers(
        types=types, amount=f"/data/object/{amount}", currency="/data/object/currency", unit=Unit.MINOR
    )


def _paypal(amount: str, currency: str, *types: str) -> MoneyPointers:
    return MoneyPointers(types=types, amount=amount, currency=currency, unit=Unit.MAJOR)


def _square(what: str) -> MoneyPointers:
    money = f"/data/object/{what}/amount_money"
    return MoneyPointers(types=(f"{what}.*",), amount=f"{money}/amount", currency=f"{money}/currency", unit=Unit.MINOR)


READY_MADE: Final[Mapping[str, Sequence[MoneyPointers]]] = MappingProxyType(
    {
        "stripe": (
            _stripe("amount_paid", "invoice.paid", "invoice.payment_succeeded"),
            _stripe("amount_due", "invoice.*"),
            _stripe("amount_total", "checkout.session.*"),
            _stripe("amount_refunded", "charge.refunded"),
            _stripe("amount", "charge.*", "payment_intent.*", "payout.*", "refund.*", "topup.*", "transfer.*"),
        ),
        "paypal": (
            _paypal("/resource/amount/total", "/resource/amount/currency", "PAYMENT.SALE.*"),
            _paypal(
                "/resource/purchase_units/0/amount/value",
                "/resource/purchase_units/0/amount/currency_code",
                "CHECKOUT.ORDER.*",
            ),
            _paypal("/resource/dispute_amount/value", "/resource/dispute_amount/currency_code", "CUSTOMER.DISPUTE.*"),
            _paypal("/resource/amount/value", "/resource/amount/currency_code", "PAYMENT.*"),
        ),
        "shopify": (
            MoneyPointers(types=("orders/*",), amount="/total_price", currency="/currency", unit=Unit.MAJOR),
            MoneyPointers(types=("order_transactions/*",), amount="/amount", currency="/currency", unit=Unit.MAJOR),
        ),
        "gocardless": (),  # its events only link to what has the amount
        "square": tuple(_square(what) for what in ("payment", "refund", "dispute", "payout")),
    }
)
"""{provider as it is configured: its pointers}. The first whose types match an event's is its own."""


def read_money(pointers: Sequence[MoneyPointers], event_type: str, payload: bytes) -> Money | None:
    """Return the amount that an event names; None: it names none that can be read."""
    found = _pointers_of(tuple(pointers), event_type)
    if found is None:
        return None
    try:
        value = json.loads(payload, parse_float=Decimal)
    except (ValueError, RecursionError):
        return None
    amount, currency = _at(value, found.amount), _at(value, found.currency)
    exact = _exact(amount)
    if exact is None or not isinstance(currency, str) or len(currency) != CURRENCY_LETTERS or not currency.isalpha():
        return None
    return Money(amount=exact, currency=currency.upper(), unit=found.unit)


@lru_cache(maxsize=1000)
def _pointers_of(pointers: tuple[MoneyPointers, ...], event_type: str) -> MoneyPointers | None:
    return next((each for each in pointers if event_type in TypePatterns(each.types)), None)


def _at(value: Any, pointer: str) -> Any:
    for step in parse(pointer):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _exact(value: Any) -> Decimal | None:
    """Return a JSON number, or a text that is one, as it stands; None: it is no amount."""
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    if isinstance(value, str) and not (value.isascii() and len(value) <= 2 * MOST_DIGITS):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    if not number.is_finite() or number.adjusted() >= MOST_DIGITS:
        return None
    exponent = number.as_tuple().exponent
    return number if isinstance(exponent, int) and exponent >= -MOST_DIGITS else None
