"""Shopify: signed webhooks whose bodies are resources, and GraphQL lists of what each resource is now."""

from gapless_reconcilers.providers.shopify.provider import PROVIDER, Shopify, ShopifyOptions

__all__ = ["PROVIDER", "Shopify", "ShopifyOptions"]
