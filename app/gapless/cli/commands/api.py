"""`gapless api`: the OpenAPI document of the HTTP API."""

import click

from gapless.console.api.document import encoded


@click.command()
def api() -> None:
    """Print the OpenAPI document of the HTTP API.

    The daemon serves that API under /api/v1 of its private listener, and this document at /api/v1/openapi.json.

    gapless api > openapi.json
    """
    click.echo(encoded(), nl=False)
