"""Style, scripts and icons. Their names carry a digest, so browsers may keep them for a year."""

import hashlib
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from litestar import Response, get
from litestar.exceptions import NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gapless.console.auth import Area
from gapless.console.routing import HEADERS, guarded, respond

FOLDER: Final = Path(__file__).parent / "static"
TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml; charset=utf-8",
}
CACHED: Final = {**HEADERS, "cache-control": "public, max-age=31536000, immutable"}


def _named(path: Path) -> tuple[str, bytes, str]:
    """Return the name with the digest, the content and its type."""
    content = path.read_bytes()
    return f"{hashlib.sha256(content).hexdigest()[:12]}-{path.name}", content, TYPES[path.suffix]


FILES: Final = {name: (content, kind) for name, content, kind in map(_named, sorted(FOLDER.iterdir()))}
ADDRESSES: Final = {name.partition("-")[2]: f"/assets/{name}" for name in FILES}
"""Where a page finds each file, by its name."""


def assets_route() -> HTTPRouteHandler:
    """`GET /assets/<name>`. They are the same for everybody, so whoever signs in may read them too."""

    @get("/assets/{name:str}", guards=[guarded(Area.PROBE)], include_in_schema=False)
    async def asset(name: FromPath[str]) -> Response[Any]:
        """Return one file."""
        if name not in FILES:
            raise NotFoundException(detail="there is no such file")
        content, kind = FILES[name]
        return respond(HTTPStatus.OK, content, kind, CACHED)

    return asset
