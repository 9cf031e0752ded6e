"""Amounts that events name, exact, by pointers per type."""

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gapless.money import READY_MADE, Money, Unit, read_money

STRIPE = READY_MADE["stripe"]


def stripe(**fields: object) -> bytes:
    return json.dumps({"id": "evt_1", "data": {"object": fields}}).encode()


@pytest.mark.parametrize(
    ("provider", "kind", "payload", "wanted"),
    [
        ("stripe", "invoice.paid", {"data": {"object": {"amount_paid": 1250, "currency": "eur"}}}, "1250 EUR minor"),
        ("stripe", "charge.refunded", {"data": {"object": {"amount_refunded": 5, "currency": "jpy"}}}, "5 JPY minor"),
        ("stripe", "payout.paid", {"data": {"object": {"amount": -5, "currency": "usd"}}}, "-5 USD minor"),
        (
            "paypal",
            "PAYMENT.CAPTURE.COMPLETED",
            {"resource": {"amount": {"value": "12.50", "currency_code": "EUR"}}},
            "12.50 EUR major",
        ),
        (
            "paypal",
            "PAYMENT.SALE.COMPLETED",
            {"resource": {"amount": {"total": "7.00", "currency": "USD"}}},
            "7.00 USD major",
        ),
        ("shopify", "orders/paid", {"total_price": "99.90", "currency": "GBP"}, "99.90 GBP major"),
        (
            "square",
            "payment.updated",
            {"data": {"object": {"payment": {"amount_money": {"amount": 100, "currency": "CAD"}}}}},
            "100 CAD minor",
        ),
        ("gocardless", "payments", {"amount": 1, "currency": "GBP"}, None),
        ("stripe", "customer.created", {"data": {"object": {"amount": 1, "currency": "eur"}}}, None),
    ],
)
def test_ready_made_pointers_find_the_amount(
    provider: str, kind: str, payload: dict[str, object], wanted: str | None
) -> None:
    found = read_money(READY_MADE[provider], kind, json.dumps(payload).encode())
    assert wanted == (None if found is None else f"{found.amount} {found.currency} {found.unit}")


def test_a_fraction_is_never_rounded() -> None:
    body = b'{"data":{"object":{"amount":0.10000000000000000001,"currency":"usd"}}}'
    money = read_money(STRIPE, "charge.succeeded", body)
    assert money == Money(amount=Decimal("0.10000000000000000001"), currency="USD", unit=Unit.MINOR)


@pytest.mark.parametrize(
    "amount", [None, True, [], {}, "", "NaN", "Infinity", "1e99999999", 1e300, "٣", "1_0x", "x" * 99]
)
def test_what_is_no_amount_names_none(amount: object) -> None:
    assert read_money(STRIPE, "charge.succeeded", stripe(amount=amount, currency="eur")) is None


@pytest.mark.parametrize("currency", [None, "", "euro", 978, "€€€€", "e1r"])
def test_without_a_currency_there_is_no_amount(currency: object) -> None:
    assert read_money(STRIPE, "charge.succeeded", stripe(amount=1, currency=currency)) is None


@given(st.binary() | st.recursive(st.none() | st.text(), st.lists).map(lambda v: json.dumps(v).encode()))
def test_no_payload_fails(payload: bytes) -> None:
    assert read_money(STRIPE, "charge.succeeded", payload) is None


def test_a_payload_that_is_nested_too_deep_names_none() -> None:
    assert read_money(STRIPE, "charge.succeeded", b'{"data":' + b"[" * 100_000) is None
