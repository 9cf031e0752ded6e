"""What Gapless knows of each vendor: one module per provider, all of them pure, and the kit that they share."""

from importlib.metadata import version

__version__ = version("gapless")

__all__ = ["__version__"]
