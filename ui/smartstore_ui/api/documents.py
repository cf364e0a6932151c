"""GET /openapi.json, the contract, and GET /docs, which shows it with Swagger UI's files from this program."""

from importlib import resources

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from smartstore_ui.api.context import api_of
from smartstore_ui.api.contract import openapi

PAGE = """<!doctype html>
<html lang="ko">
<head>
<meta charset="utf-8">
<title>스마트스토어 FAQ 챗봇 API</title>
<link rel="stylesheet" href="/docs/files/swagger-ui.css">
<link rel="icon" href="/docs/files/favicon-32x32.png">
</head>
<body>
<div id="page"></div>
<script src="/docs/files/swagger-ui-bundle.js"></script>
<script src="/docs/page.js"></script>
</body>
</html>
"""
SCRIPT = 'SwaggerUIBundle({url: "/openapi.json", dom_id: "#page", deepLinking: true});\n'
# Swagger UI writes style attributes, and its icons are data: images.
CONTENT = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"
FILES = resources.files("swagger_ui").joinpath("static")


async def document(request: Request) -> Response:
    """Return the OpenAPI document."""
    api = api_of(request)
    return JSONResponse(openapi(api.bot.models, api.settings.server))


async def page(request: Request) -> Response:
    """Return the page that shows it."""
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": CONTENT})


async def script(request: Request) -> Response:
    """Return the page's script."""
    return Response(SCRIPT, media_type="text/javascript")


ROUTES: list[BaseRoute] = [
    Route("/openapi.json", document, methods=["GET"]),
    Route("/docs", page, methods=["GET"]),
    Route("/docs/", page, methods=["GET"]),
    Route("/docs/page.js", script, methods=["GET"]),
    Mount("/docs/files", StaticFiles(directory=str(FILES))),
]
