"""Shopify: signed webhooks whose bodies are resources, and GraphQL lists of the present state of each resource."""

from gapless_reconcilers.providers.shopify.provider import PROVIDER, Shopify, ShopifyOptions

__all__ = ["PROVIDER", "Shopify", "ShopifyOptions"]
