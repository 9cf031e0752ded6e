"""Any vendor with a REST list of events, declared in TOML; `gapless_reconcilers/declared` has the ready-made ones."""

from gapless_reconcilers.providers.rest_list.provider import PROVIDER, RestList

__all__ = ["PROVIDER", "RestList"]
