"""A fake provider for tests: the lists and webhooks of a vendor, with faults on request."""

from gapless_reconcilers.testing.fake.provider import FakeProvider, FakeState, VendorFormat, utc_now

__all__ = ["FakeProvider", "FakeState", "VendorFormat", "utc_now"]
