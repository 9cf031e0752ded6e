"""A provider to test against: lists and webhooks of a vendor, with faults on request."""

from gapless_reconcilers.testing.fake.provider import FakeProvider, utc_now
from gapless_reconcilers.testing.fake.vendor_format import FakeState, VendorFormat

__all__ = ["FakeProvider", "FakeState", "VendorFormat", "utc_now"]
