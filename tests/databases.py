"""A real PostgreSQL of the tests' own."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from conftest import START_SECONDS, free_port, wait_until

DEBIANS = Path("/usr/lib/postgresql")
SYSTEM_USER = "postgres"  # the server refuses to run as root
OPTIONS = (
    "fsync=off",
    "full_page_writes=off",
    "shared_buffers=16MB",
    "max_connections=40",
    "listen_addresses=127.0.0.1",
)


class PostgresProcess:
    """A server in a folder of its own, which a test may stop and start again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._programs = programs()
        self._user: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        if os.geteuid() == 0:
            user = pwd.getpwnam(SYSTEM_USER)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        self._run(
            "initdb", "-D", self.folder / "data", "-U", "test", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"
        )

    def start(self) -> None:
        options = [part for option in (*OPTIONS, f"unix_socket_directories={self.folder}") for part in ("-c", option)]
        self._process = subprocess.Popen(
            [self._programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), *options],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._user,
        )
        wait_until(self._answers, START_SECONDS)

    def stop(self) -> None:
        """End the server and every connection; what was committed stays."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=START_SECONDS)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def emptied(self) -> str:
        """Return the address of the server's one database, emptied."""
        url = f"postgresql://test@127.0.0.1:{self.port}/postgres"
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        finally:
            await connection.close()
        return url

    def _answers(self) -> bool:
        asked = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(asked, check=False).returncode == 0

    def _run(self, program: str, *arguments: str | Path) -> None:
        subprocess.run(
            [str(self._programs / program), *map(str, arguments)],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            check=True,
            timeout=START_SECONDS,
            **self._user,
        )


def programs() -> Path:
    """Return the folder of the server's programs, which Debian does not put on the path."""
    found = shutil.which("initdb") or next(iter(sorted(DEBIANS.glob("*/bin/initdb"), reverse=True)), None)
    assert found, "PostgreSQL is missing: `make setup-dev` installs it"
    return Path(found).resolve().parent


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresProcess]:
    """Start a PostgreSQL for all tests, one after the other, which each empty it; none may end it."""
    yield from _started()


@pytest.fixture
def own_postgres() -> Iterator[PostgresProcess]:
    """Start a PostgreSQL of this test's own, to end and start as it likes."""
    yield from _started()


def _started() -> Iterator[PostgresProcess]:
    server = PostgresProcess()
    try:
        server.start()
        yield server
    finally:
        server.remove()
