"""Gapless: receives, records, lists, compares, recovers and delivers webhook events, and proves that none is lost."""

from importlib.metadata import version

__version__ = version("gapless")

__all__ = ["__version__"]
