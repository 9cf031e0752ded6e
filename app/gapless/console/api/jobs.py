"""`/api/v1/jobs`: what is done to many events, and how far it is."""

from http import HTTPStatus
from typing import Any

from litestar import Request, Response, get
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler

from gapless.console.api.query import PageQuery, read_number, read_query, respond_page
from gapless.console.auth import Area
from gapless.console.routing import guarded, principal_of, respond_json
from gapless.ledger import jobs as ledger
from gapless.operations import jobs
from gapless.operations.context import OperationContext


class JobsQuery(PageQuery, frozen=True, kw_only=True):
    """Which jobs."""

    running: bool = False
    """Only those that have not ended."""


def job_routes(context: OperationContext) -> list[HTTPRouteHandler]:
    """`GET /api/v1/jobs` and `GET /api/v1/jobs/<id>`."""

    @get("/api/v1/jobs", guards=[guarded(Area.READ)])
    async def list_jobs(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return a page of jobs, the newest first: for a limited token, those of its sources."""
        query = read_query(request, JobsQuery)
        before = read_number(query.cursor)
        found = await context.read(ledger.newest, only_running=query.running, before_id=before, limit=query.limit)
        items = [jobs.as_values(job) for job in found if jobs.may_see(principal_of(request), job)]
        return respond_page(items, str(found[-1].id) if len(found) == query.limit else None)

    @get("/api/v1/jobs/{job_id:str}", guards=[guarded(Area.READ)])
    async def show_job(request: Request[Any, Any, Any]) -> Response[bytes]:
        """Return one job."""
        job_id = read_number(request.path_params["job_id"])
        job = None if job_id is None else await context.read(ledger.find, job_id=job_id)
        if job is None or not jobs.may_see(principal_of(request), job):
            raise HTTPException(status_code=404, detail="there is no such job")
        return respond_json(HTTPStatus.OK, jobs.as_values(job))

    return [list_jobs, show_job]
