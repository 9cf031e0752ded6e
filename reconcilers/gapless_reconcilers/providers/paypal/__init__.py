"""PayPal: webhooks that a certificate signs, and the list of a REST app's webhook events.

Sources, read November 2026: paypal-rest-api-specifications `notifications_webhooks_v1.json`, paypalrestsdk 1.13.3
`notifications.py`, PayPal's pages on webhooks and rate limits, PayPal-node-SDK issue 125. NV: not verified.
"""

from gapless_reconcilers.providers.paypal.provider import PROVIDER, PayPal, PayPalOptions

__all__ = ["PROVIDER", "PayPal", "PayPalOptions"]
