"""Every error as one shape, {"error": {"code", "message", "request_id"}}, with its status; never a stack trace."""

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import ExceptionHandler

from smartstore_indexing.errors import Busy, FaqError, InvalidRequest
from smartstore_ui.api.requests import MAX_BODY_BYTES

log = structlog.get_logger(__name__)
MESSAGES = {
    400: ("bad_request", "요청을 읽을 수 없습니다."),
    404: ("not_found", "그런 주소가 없습니다."),
    405: ("method_not_allowed", "이 주소에는 그 메서드를 쓸 수 없습니다."),
    413: ("too_large", f"요청 본문은 {MAX_BODY_BYTES // 1024}KiB까지 보낼 수 있습니다."),
}
FILES = ("GET", "HEAD")  # the methods of mounted files
INTERNAL = ("internal", "서버에 오류가 났습니다. 잠시 후 다시 시도해 주세요.")


def error_body(code: str, message: str, request_id: str) -> dict[str, dict[str, str]]:
    """Return the one shape of an error."""
    return {"error": {"code": code, "message": message, "request_id": request_id}}


def status_of(code: str) -> int:
    """Return the status of an error's code, as the error tree has it; 500 for any other."""
    return _statuses(FaqError).get(code, 500)


def _statuses(kind: type[FaqError]) -> dict[str, int]:
    found = {kind.code: kind.status}
    for below in kind.__subclasses__():
        found |= _statuses(below)
    return found


async def _faq_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FaqError)
    if not isinstance(error, InvalidRequest):
        log.warning("request refused", code=error.code, status=error.status)
    headers = {"Retry-After": str(error.retry_after)} if isinstance(error, Busy) else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_body(error.code, error.message, request.state.request_id), error.status, headers)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code, message = MESSAGES.get(error.status_code, INTERNAL)
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return JSONResponse(error_body(code, message, request.state.request_id), error.status_code, headers)


def _allowed(request: Request) -> str:
    """Return the methods of an address: Starlette names those of its first route alone."""
    fitting = (route for route in request.app.routes if route.matches(request.scope)[0] is not Match.NONE)
    return ", ".join(sorted({method for route in fitting for method in getattr(route, "methods", None) or FILES}))


async def _unexpected(request: Request, _: Exception) -> Response:
    """Return a fixed sentence; Starlette raises the error on, and uvicorn logs it."""
    return JSONResponse(error_body(*INTERNAL, request.state.request_id), 500)


HANDLERS: dict[type[Exception], ExceptionHandler] = {
    FaqError: _faq_error,
    HTTPException: _http_error,
    Exception: _unexpected,
}
