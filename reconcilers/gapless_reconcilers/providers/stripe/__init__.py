"""Stripe: snapshot and thin events, signed webhooks, the list of events, Connect accounts as streams."""

from gapless_reconcilers.providers.stripe.provider import PROVIDER, Stripe, StripeOptions

__all__ = ["PROVIDER", "Stripe", "StripeOptions"]
