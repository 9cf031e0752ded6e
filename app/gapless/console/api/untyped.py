"""What the OpenAPI document says of the routes that read query and body themselves: it is made of their structs."""

from http import HTTPStatus
from typing import Any, Final

import msgspec
from msgspec import Struct

from gapless.console.api import attempts, changes, dead_letters, jobs
from gapless.console.api.problems import MEANINGS, PROBLEM_JSON
from gapless.operations.registry import OPERATIONS

LISTS: Final[tuple[tuple[str, type[Struct], str, str], ...]] = (
    ("/api/v1/attempts", attempts.AttemptsQuery, "events", "List the attempts to deliver an event, the oldest first."),
    ("/api/v1/dead-letters", dead_letters.UnsettledQuery, "dead letters", "List dead letters."),
    ("/api/v1/dead-letters/count", dead_letters.UnsettledQuery, "dead letters", "Count dead letters."),
    ("/api/v1/held", dead_letters.UnsettledQuery, "dead letters", "List held deliveries."),
    ("/api/v1/held/count", dead_letters.UnsettledQuery, "dead letters", "Count held deliveries."),
    ("/api/v1/jobs", jobs.JobsQuery, "jobs", "List what is done to many events."),
)
"""Each list: its path, what its query may say, its tag, and what it is."""
READ: Final = (400, 401, 403, 404, 429, 503)
WRITTEN: Final = (*READ, 409, 413, 415)
NUMBER: Final = {
    "name": "job_id",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
}


def described() -> dict[str, Any]:
    """Return the paths."""
    found: dict[str, Any] = {
        path: {"get": _operation(f"GET {path}", tag, said, READ) | {"parameters": _parameters(query)}}
        for path, query, tag, said in LISTS
    }
    show = _operation("GET /api/v1/jobs/{job_id}", "jobs", "Show a job.", READ)
    cancel = _operation(
        "POST /api/v1/jobs/{job_id}/cancel", "jobs", "Cancel a job; the body may have a `note`.", WRITTEN
    )
    found["/api/v1/jobs/{job_id}"] = {"get": show | {"parameters": [NUMBER]}}
    found["/api/v1/jobs/{job_id}/cancel"] = {
        "post": cancel | {"parameters": [NUMBER], "requestBody": _body({"type": "object"})}
    }
    for path, name in changes.OPERATIONS.items():
        takes = OPERATIONS[name].request
        said = (takes.__doc__ or "").strip()
        body = _body({"$ref": f"#/components/schemas/{takes.__name__}"})
        found[path] = {"post": _operation(f"POST {path}", "operations", said, WRITTEN) | {"requestBody": body}}
    return found


def _operation(name: str, tag: str, said: str, problems: tuple[int, ...]) -> dict[str, Any]:
    done = {"description": "Done.", "content": {"application/json": {"schema": {"type": "object"}}}}
    responses: dict[str, Any] = {"200": done}
    for status in problems:
        problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
        responses[str(status)] = {"description": MEANINGS[HTTPStatus(status)], "content": {PROBLEM_JSON: problem}}
    return {"operationId": name, "tags": [tag], "description": said, "responses": responses}


def _body(schema: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _parameters(query: type[Struct]) -> list[dict[str, Any]]:
    """Return the parameters of a query, of which each is there once or, where it is an array, several times."""
    return [
        {"name": each.encode_name, "in": "query", "required": each.required, "schema": msgspec.json.schema(each.type)}
        for each in msgspec.structs.fields(query)
    ]
