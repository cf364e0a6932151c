"""`smartstore serve`: the chat page and the API on uvicorn.

On SIGTERM it takes no more questions, lets answers finish, then ends.
"""

import gc
import socket
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from types import FrameType
from typing import Literal

import structlog
import uvicorn
import uvloop
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from smartstore_indexing.errors import Misconfigured
from smartstore_indexing.holding import announce
from smartstore_indexing.setting_groups import ServerSettings
from smartstore_indexing.settings import Settings, load_settings
from smartstore_ui.api.application import API, application
from smartstore_ui.api.context import Api, opened
from smartstore_ui.api.requests import MAX_BODY_BYTES
from smartstore_ui.api.runs import Runs
from smartstore_ui.chat.chainlit_home import prepare
from smartstore_ui.logs import configure_logs
from smartstore_workflows.tracing import traced

log = structlog.get_logger(__name__)
Door = Literal["api", "chat"]
QUIET_TICKS = 3  # without a run or a reader before the end, of 0.1 s: what a page is sent last comes after the answer
CLOSE_SECONDS = 5  # for connections that are still open when the runs have ended
BACKLOG = 2_048


def run_serve(host: str | None, port: int | None, *, only: Door | None) -> int:
    """Serve until a signal ends it; host and port are by default the settings', and both doors are open."""
    settings = load_settings()
    configure_logs(settings.watch)
    where = settings.server.model_copy(
        update={"host": host or settings.server.host, "port": settings.server.port if port is None else port}
    )
    uvloop.run(_serve(settings.model_copy(update={"server": where}), only))
    return 0


async def _serve(settings: Settings, only: Door | None) -> None:
    with bound(settings.server.host, settings.server.port) as (listener, url):
        async with traced(settings.watch), opened(settings) as api, _page(api, only) as page:
            if only != "chat":
                announce(settings.data_dir, url)  # `smartstore index` asks it to index
            gc.collect()
            gc.freeze()  # the index is a million objects, which every full collection would look through
            documents = "" if only == "chat" else f" API 문서: {url}/docs"
            sys.stderr.write(f"스마트스토어 FAQ 챗봇이 {url} 에서 답합니다.{documents} (끝내려면 Ctrl-C)\n")
            app = application(api, [*([] if only == "chat" else API), *page])
            await DrainingServer(_config(app, settings.server), api.runs, settings.server.drain_seconds).serve(
                sockets=[listener]
            )


@contextmanager
def bound(host: str, port: int) -> Iterator[tuple[socket.socket, str]]:
    """Yield a socket for uvicorn to listen on, and its URL.

    Raises:
        Misconfigured: the address is in use, or not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(socket.socket(family))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))  # uvicorn listens, when there is somebody to answer
        except OSError as error:
            raise Misconfigured(
                f"{host}의 {port}번 포트를 열 수 없습니다 ({error.strerror}). "
                "이미 쓰는 프로그램을 끝내거나 --port로(워커는 SMARTSTORE_WORKER__PORT로) 다른 포트를 정해 주세요."
            ) from error
        host, port = listener.getsockname()[:2]  # which 0 was a wish for
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        yield listener, f"http://{shown}:{port}"


class DrainingServer(uvicorn.Server):
    """A uvicorn server that lets the runs end before it closes its connections; a second signal ends it at once."""

    def __init__(self, config: uvicorn.Config, runs: Runs, drain_seconds: float) -> None:
        """Serve with that configuration, and wait at most so long for the runs."""
        super().__init__(config)
        self._runs = runs
        self._drain_seconds = drain_seconds
        self._drain_until = float("inf")
        self._quiet_ticks = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to drain; at the second signal end."""
        if self._runs.closing:
            self.should_exit = self.force_exit = True
            return
        self._runs.close()
        self._drain_until = time.monotonic() + self._drain_seconds
        log.info("draining", live_runs=self._runs.live)

    async def on_tick(self, counter: int) -> bool:
        """Return whether to end now; called ten times a second."""
        if self._runs.closing:
            self._quiet_ticks = 0 if self._runs.busy else self._quiet_ticks + 1
            if self._quiet_ticks >= QUIET_TICKS or time.monotonic() > self._drain_until:
                self.should_exit = True
        return await super().on_tick(counter)


@asynccontextmanager
async def _page(api: Api, only: Door | None) -> AsyncGenerator[list[BaseRoute], None]:
    """Yield the chat page's routes, none where it is not to be opened; raises what `opened_page` raises."""
    if only == "api":
        yield []
        return
    prepare(api.settings)
    # Here, because Chainlit reads its folder and its variables when it is imported, and takes seconds for that.
    from smartstore_ui.chat.page import opened_page

    configure_logs(api.settings.watch)  # what was imported has made loggers of its own
    async with opened_page(api) as routes:
        yield routes


def _config(app: ASGIApp, server: ServerSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=True,
        forwarded_allow_ips=server.trusted_proxies,
        ws_max_size=MAX_BODY_BYTES,
        timeout_graceful_shutdown=CLOSE_SECONDS,
        backlog=BACKLOG,
    )
