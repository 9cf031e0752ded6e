"""Gapless receives and delivers webhook events, finds missed ones in the provider's list, and proves completeness."""

__version__ = "0.1.0"

__all__ = ["__version__"]
