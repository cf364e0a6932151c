"""One process at a time holds a data folder: Milvus Lite locks its file, and says no more than that it failed."""

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smartstore_indexing.errors import FolderInUse, StoreUnavailable

HOLDER = "holder.json"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder, made where there is none, until the block or the process ends, however it ends.

    Raises:
        FolderInUse: another process holds it; the message says which.
        StoreUnavailable: the folder cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / HOLDER).open("ab+", buffering=0)  # what a full disk refuses must not wait for the end
    except OSError as error:
        raise StoreUnavailable(
            f"데이터 폴더 {folder}에 쓸 수 없습니다 ({error.strerror}). "
            "권한을 확인하거나 SMARTSTORE_DATA_DIR을 바꿔 주세요."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise FolderInUse(
                f"데이터 폴더 {folder}을(를) {_holder(folder)} 쓰고 있습니다. 먼저 종료해 주세요."
            ) from error
        try:
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "command": _command()}).encode())
        except OSError:
            pass  # who holds it is only said better with it: on a full disk the lock holds all the same
        yield


def _holder(folder: Path) -> str:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        return f"다른 프로세스({holder['command']}, PID {holder['pid']})가"
    except (OSError, ValueError, KeyError, TypeError):
        return "다른 프로세스가"


def _command() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
