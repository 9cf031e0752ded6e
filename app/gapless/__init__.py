"""Gapless: receives, records, lists, compares, recovers and delivers webhook events, and proves that none is lost."""

__version__ = "0.1.0"

__all__ = ["__version__"]
