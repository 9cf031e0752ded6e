"""What is masked of each vendor's events unless somebody says otherwise."""

import dataclasses
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gapless import masking
from gapless.settings import SourceSettings
from gapless_reconcilers.kit import registry
from gapless_reconcilers.providers.stripe import Stripe

ROOT = Path(__file__).parents[2]
DECLARED = ROOT / "reconcilers/gapless_reconcilers/declared"
POINTER = re.compile(r"(/[^/]+)+")


def of_vendors() -> dict[str, tuple[str, ...]]:
    """Return the default masks of each provider and of each ready-made declaration."""
    found = {kind: registry.load(kind).capabilities.personal_data for kind in registry.kinds()}
    for file in DECLARED.glob("*.toml"):
        options = tomllib.loads(file.read_text())["source"][0]["options"]
        found[file.stem] = tuple(options.get("personal_data", ()))
    del found["rest_list"]
    return found


@pytest.mark.parametrize(
    ("mask", "shown"),
    [
        (["default"], b'{"data":{"object":{"id":"in_1","customer_email":"***","note":"n"}}}'),
        (["default", "/data/object/note"], b'{"data":{"object":{"id":"in_1","customer_email":"***","note":"***"}}}'),
        (["/data/object/note"], b'{"data":{"object":{"id":"in_1","customer_email":"a@b.c","note":"***"}}}'),
        ([], b'{"data":{"object":{"id":"in_1","customer_email":"a@b.c","note":"n"}}}'),
    ],
)
def test_defaults_can_be_extended_and_switched_off(mask: list[str], shown: bytes) -> None:
    settings = SourceSettings(name="acme", provider="stripe", mask=tuple(mask))
    payload = b'{"data":{"object":{"id":"in_1","customer_email":"a@b.c","note":"n"}}}'
    assert masking.shown(payload, settings.effective_mask(Stripe.capabilities)) == shown


def test_what_is_known_is_masked_unless_somebody_says_otherwise() -> None:
    assert SourceSettings(name="acme", provider="stripe").mask == ("default",)


@pytest.mark.parametrize("vendor", of_vendors())
def test_default_masks_are_pointers_that_overlap_in_none(vendor: str) -> None:
    pointers = of_vendors()[vendor]
    assert [each for each in pointers if not POINTER.fullmatch(each)] == []
    assert [(a, b) for a in pointers for b in pointers if a != b and b.startswith(f"{a}/")] == []


def test_the_page_has_the_masks_of_the_code() -> None:
    page = (ROOT / "docs/compliance.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+?) \| [^|]+ \|$", page, re.MULTILINE)
    assert {name: tuple(re.findall(r"`([^`]+)`", cell)) for name, cell in rows} == {
        name: pointers for name, pointers in of_vendors().items() if pointers
    }


def test_stripes_fields_are_in_its_own_types() -> None:
    """Those that the page calls verified."""
    import stripe  # noqa: PLC0415 - it takes long

    types: list[Any] = [
        stripe.Charge, stripe.Customer, stripe.Invoice, stripe.PaymentIntent, stripe.PaymentMethod,
        stripe.checkout.Session, stripe.Account,
    ]  # fmt: skip
    known = {name for each in types for name in each.__annotations__}
    names = {each.removeprefix("/data/object/") for each in Stripe.capabilities.personal_data if "/object/" in each}
    assert names - known == set()


def test_squares_and_paddles_fields_are_in_their_own_types() -> None:
    from paddle_billing.Notifications.Entities.Address import Address  # noqa: PLC0415 - it takes long
    from paddle_billing.Notifications.Entities.Business import Business  # noqa: PLC0415
    from paddle_billing.Notifications.Entities.Customer import Customer  # noqa: PLC0415
    from paddle_billing.Notifications.Entities.Transaction import Transaction  # noqa: PLC0415
    from square.types import booking, invoice, payment  # noqa: PLC0415

    fields = {f.name for each in (Address, Business, Customer, Transaction) for f in dataclasses.fields(each)}
    expanded = {"customer", "address", "business"}  # entities that an API request can ask for beside a transaction
    paddle = {pointer.split("/")[2] for pointer in of_vendors()["paddle"]}
    assert paddle - fields == expanded
    models: dict[str, Any] = {"payment": payment.Payment, "invoice": invoice.Invoice, "booking": booking.Booking}
    for pointer in of_vendors()["square"]:
        _, _, _, kind, *rest = pointer.split("/")
        assert not rest or rest[0] in models[kind].model_fields, pointer
