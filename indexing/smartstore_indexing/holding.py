"""One process at a time holds a data folder: Milvus Lite locks its file, and says no more than that it failed."""

import fcntl
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
            raise _in_use(folder) from error
        try:
            file.truncate(0)
            file.write(json.dumps(_self()).encode())
        except OSError:
            pass  # who holds it is only said better with it: on a full disk the lock holds all the same
        yield


def announce(folder: Path, url: str) -> None:
    """Tell others at which address the process that holds the folder can be asked; called by that process."""
    with suppress(OSError):  # as in `held`
        (folder / HOLDER).write_text(json.dumps({**_self(), "url": url}), encoding="utf-8")


def _in_use(folder: Path) -> FolderInUse:
    try:
        holder = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        name, url = f"다른 프로세스({holder['command']}, PID {holder['pid']})가", str(holder.get("url", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        name, url = "다른 프로세스가", ""
    return FolderInUse(f"데이터 폴더 {folder}을(를) {name} 쓰고 있습니다. 먼저 종료해 주세요.", url=url)


def _self() -> dict[str, object]:
    return {"pid": os.getpid(), "command": _command()}


def _command() -> str:
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])
