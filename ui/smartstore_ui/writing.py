"""Files that are written whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path

from smartstore_indexing.errors import InvalidRequest


def check_target(target: Path, taken: Iterable[Path | None]) -> None:
    """Raise InvalidRequest when a file cannot be written there, or would take the place of one of those taken."""
    try:
        place = target.resolve()
        if place in {path.resolve() for path in taken if path is not None}:
            raise InvalidRequest(f"{target}: 이미 다른 데 쓰는 파일입니다. 저장할 파일의 이름을 다르게 해 주세요.")
        if not place.parent.is_dir():
            raise InvalidRequest(f"{target}: 저장할 폴더가 없습니다. 폴더를 먼저 만들어 주세요.")
        if place.exists() and not place.is_file():
            raise InvalidRequest(f"{target}: 파일이 아니어서 저장할 수 없습니다. 다른 이름을 써 주세요.")
        _try_to_write(place)
    except (OSError, RuntimeError) as error:  # RuntimeError: symbolic links in a circle
        raise InvalidRequest(
            f"{target}: 여기에는 저장할 수 없습니다. 쓰기 권한과 파일 이름을 확인해 주세요."
        ) from error


def _try_to_write(place: Path) -> None:
    if place.exists() and not os.access(place, os.W_OK):
        raise PermissionError
    trial = _beside(place)
    trial.touch(exist_ok=False)
    trial.unlink()


def write_whole(target: Path, text: str, *, errors: str) -> None:
    """Write a file as UTF-8, or leave the one that is there as it was; `errors` says what stands for lone surrogates.

    Raises:
        OSError: it cannot be written.
    """
    place = target.resolve()  # of a symbolic link its target is replaced, and the link stays
    partial = _beside(place)
    try:
        with partial.open("xb") as file:
            file.write(text.encode("utf-8", errors))
            file.flush()
            os.fsync(file.fileno())
        if place.exists():
            shutil.copymode(place, partial)
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)


def _beside(place: Path) -> Path:
    return place.with_name(f".smartstore-{secrets.token_hex(8)}.tmp")
