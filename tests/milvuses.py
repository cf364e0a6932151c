"""Milvus servers of the tests' own: Milvus Lite's, and the real one that PyPI carries."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
from conftest import START_SECONDS, free_port

PROGRAMS = Path(sys.executable).parent
REAL = PROGRAMS.parent / "milvus"  # `make test-milvus` installs it there
REAL_START_SECONDS = 120.0
END_SECONDS = 40.0


class MilvusProcess:
    """A `milvus-lite server`."""

    start_seconds = START_SECONDS

    def __init__(self) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = Path(tempfile.mkdtemp(prefix="milvus-"))
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str | Path]:
        """Return the command that serves the folder at the port."""
        listening = ["--host", "127.0.0.1", "--port", str(self.port)]
        return [PROGRAMS / "milvus-lite", "server", "--data-dir", self.folder / "data", *listening]

    def start(self) -> None:
        """Return as soon as it takes calls."""
        with (self.folder / "server.out").open("ab") as output:
            self._process = subprocess.Popen(
                self.command(),
                env={"PATH": os.defpath, "HOME": str(self.folder), "GRPC_VERBOSITY": "NONE", "PYTHONPATH": str(REAL)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        with grpc.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            grpc.channel_ready_future(channel).result(timeout=self.start_seconds)

    def kill(self) -> None:
        """End it, and whatever it has started, as a machine that loses its power."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=END_SECONDS)
            self._process = None

    def remove(self) -> None:
        """End it and delete what it stored."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class RealMilvusProcess(MilvusProcess):
    """Milvus 2.3.5, the last that PyPI carries for Linux: standalone, with an etcd and an object store inside."""

    start_seconds = REAL_START_SECONDS

    def command(self) -> list[str | Path]:
        """Return the command; every port that it is not given is searched for from 40,000 on."""
        assert (REAL / "milvus").is_dir(), "Milvus is missing: `make test-milvus` installs it"
        data = self.folder / "data"
        started = [PROGRAMS / "python", "-c", "from milvus import main; main()"]
        return [*started, "--data", data, "--proxy-port", str(self.port)]
