"""The files that secrets are read from, so that `gapless check` can look who may read them."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from gapless.settings.provider_options import option_files
from gapless.settings.secrets import SecretRef
from gapless.settings.tree import Settings


def secret_paths(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Yield (what it is of, path) for each file that has a secret."""
    private = settings.private
    single = [("store", settings.store.url)]
    single += [("encryption", each) for each in (settings.encryption.keys,) if each]
    single += [("private", each) for each in (private.token, private.metrics_token, private.consumer_token) if each]
    for destination in settings.destinations:
        values = (getattr(destination.options, name) for name in destination.options.__struct_fields__)
        refs = [ref for each in values for ref in (each.values() if isinstance(each, Mapping) else (each,))]
        single += [(f"destination {destination.name}", each) for each in refs if isinstance(each, SecretRef)]
    yield from ((place, each.path) for place, each in single if each.path is not None)
    for source in settings.sources:
        yield from ((f"source {source.name}", path) for path in sorted(option_files(source)))
