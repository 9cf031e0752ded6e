"""The OpenAPI document of the API."""

import json
from pathlib import Path

from gapless.console.api.document import encoded
from gapless.operations.registry import OPERATIONS

WRITTEN = Path(__file__).parents[3] / "docs" / "openapi.json"


def test_the_document_in_docs_is_that_of_the_code() -> None:
    """Write it with `gapless api > docs/openapi.json`."""
    assert WRITTEN.read_bytes() == encoded()


def test_every_operation_has_a_path_and_says_what_it_takes() -> None:
    made = json.loads(encoded())
    for name, operation in OPERATIONS.items():
        body = made["paths"][f"/api/v1/operations/{name}"]["post"]["requestBody"]["content"]["application/json"]
        takes = made["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
        assert set(takes["properties"]) == set(operation.request.__struct_fields__), name


def test_every_path_is_described_and_needs_a_token() -> None:
    made = json.loads(encoded())
    assert made["openapi"].startswith("3.1")
    assert made["security"] == [{"token": []}]
    for path, item in made["paths"].items():
        for method, operation in item.items():
            assert operation["description"], (path, method)
            assert {"200", "400", "401", "403"} <= set(operation["responses"]), (path, method)
