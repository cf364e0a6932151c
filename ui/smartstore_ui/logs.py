"""The server's log lines: one renderer for ours and the libraries', the request's id in each, no question's text.

What a person wrote, and what a library made of it, is for DEBUG alone: above it an exception is shown as its type and
where it came from, since its message may quote what it could not read. Personal data is masked at every level.
"""

import errno
import logging
import sys
import traceback
from collections.abc import Iterator

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from smartstore_indexing.errors import FaqError
from smartstore_indexing.setting_groups import WatchSettings
from smartstore_workflows.masking import mask

OURS = ("smartstore_ui", "smartstore_workflows", "smartstore_indexing")
MAX_CHARACTERS = 500  # of a library's message
MAX_FRAMES = 30  # of an exception, the innermost
MAX_CAUSES = 5
# The least level of the libraries' lines, "" for all not named; those beneath a name inherit it. None is DEBUG: there
# openai, httpcore and websockets write whole bodies, unmasked.
LIBRARIES = {
    "": logging.WARNING,  # at INFO httpx writes the address of every request
    "uvicorn": logging.INFO,
    "uvicorn.error": logging.INFO,  # it looks at this one's own level
    "uvicorn.access": logging.CRITICAL,  # writes /api/search?q=…; the API has a line of its own
    "engineio.server": logging.ERROR,  # writes packets at INFO, and adds a handler where it finds no level
    "socketio.server": logging.ERROR,
    "grpc": logging.CRITICAL,  # Milvus Lite lacks methods, and says so at every start
    "pymilvus": logging.CRITICAL,  # says at ERROR what it raises, and that an alias is not there yet
    "opentelemetry": logging.ERROR,
}
# What is a machine's own and must be found again as it is.
IDS = {"timestamp", "level", "logger", "request_id", "run_id", "message_id", "trace_id", "span_id"}


def configure_logs(settings: WatchSettings) -> None:
    """Send every log line of the process to stderr as the settings say, instead of where it went before.

    uvicorn must be told not to do so itself: `log_config=None`.
    """
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty())
    first: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _with_trace,
    ]
    last: list[Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
        structlog.processors.format_exc_info if level == logging.DEBUG else _without_messages,
        _masked,
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if as_json
        else structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=[*first, _clipped], processors=last))
    structlog.configure(
        processors=[*first, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    _take_over(handler, level)


def _take_over(handler: logging.Handler, level: int) -> None:
    """Make `handler` the only one, and give the loggers that exist, and those that will, their levels."""
    logging.disable(logging.NOTSET)  # the command line turns logging off
    logging.captureWarnings(capture=True)
    for name in list(logging.root.manager.loggerDict):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.NOTSET)
    for name, least in LIBRARIES.items():
        logging.getLogger(name).setLevel(max(least, level))
    for name in OURS:
        logging.getLogger(name).setLevel(level)
    logging.root.handlers = [handler]


def _with_trace(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Name the trace that the line belongs to, where there is one."""
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        line["trace_id"] = trace.format_trace_id(span.trace_id)
        line["span_id"] = trace.format_span_id(span.span_id)
    return line


def _clipped(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Cut a library's message: asyncio's go on with reprs of what failed, others quote the exception beside them."""
    text = str(line["event"])
    error = _error_of(line.get("exc_info"))
    if error is not None and len(str(error)) > 1:
        text = text.replace(str(error), type(error).__name__)
    line["event"] = text.partition("\n")[0][:MAX_CHARACTERS]
    return line


def _without_messages(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Put the exception's types and frames in the line: a message may quote the text that could not be handled."""
    error = _error_of(line.pop("exc_info", None))
    if error is not None:
        line["exception"] = "\n".join(_origins(error))
    return line


def _masked(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    return {name: value if name in IDS else _masked_value(value) for name, value in line.items()}


def _masked_value(value: object) -> object:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            return mask(value)
        case list() | tuple():
            return [_masked_value(item) for item in value]
        case dict():
            return {str(name): _masked_value(item) for name, item in value.items()}
    return mask(repr(value))


def _error_of(info: object) -> BaseException | None:
    """Return the exception of what a log call took as exc_info."""
    match info:
        case BaseException():
            return info
        case (_, BaseException() as error, _):
            return error
    return sys.exc_info()[1] if info else None


def _origins(error: BaseException, seen: frozenset[int] = frozenset()) -> Iterator[str]:
    """Yield the exception's type and where it came from, innermost frame last; then what caused it."""
    if id(error) in seen or len(seen) == MAX_CAUSES:  # pymilvus raises errors from themselves
        return
    seen |= {id(error)}
    yield f"{type(error).__qualname__}{_known(error)}"
    for frame in traceback.extract_tb(error.__traceback__)[-MAX_FRAMES:]:
        yield f"  {frame.filename}:{frame.lineno} {frame.name}"
    inner = error.exceptions[:MAX_CAUSES] if isinstance(error, BaseExceptionGroup) else ()
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    for other in (*inner, cause):
        if other is not None:
            yield from _origins(other, seen)


def _known(error: BaseException) -> str:
    """Return what an exception says that cannot be a person's text: our code, or the system's."""
    if isinstance(error, FaqError):
        return f" [{error.code}]"
    if isinstance(error, OSError) and error.errno is not None and error.errno in errno.errorcode:
        return f" [{errno.errorcode[error.errno]}]"
    return ""
