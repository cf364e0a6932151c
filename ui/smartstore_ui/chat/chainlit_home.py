"""The folder that Chainlit reads when it is imported: made anew at every start from the files of this package."""

import json
import os
import secrets
import shutil
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smartstore_indexing.errors import Misconfigured, StoreUnavailable
from smartstore_indexing.settings import Settings

FOLDER, SECRET_FILE = "page", "page.secret"
SECRET_BYTES = 32
LANGUAGE = "ko-KR"


def home_of(settings: Settings) -> Path:
    """Return the folder that Chainlit reads."""
    return settings.data_dir / FOLDER


def prepare(settings: Settings) -> None:
    """Write the page's files below the data folder, and point Chainlit there.

    To be called before anything imports Chainlit, which reads its folder and these variables then and never again.

    Raises:
        Misconfigured: the configured secret is too short.
        StoreUnavailable: the folder cannot be written.
    """
    home = home_of(settings)
    try:
        with as_file(files("smartstore_ui.chat") / "page_files") as ours:
            shutil.copytree(ours / "public", home / "public", dirs_exist_ok=True)
            translations = home / ".chainlit" / "translations"
            translations.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ours / "config.toml", home / ".chainlit" / "config.toml")
            shutil.copyfile(ours / "guide.md", home / f"chainlit_{LANGUAGE}.md")
            words = _merged(_chainlits_korean(), json.loads((ours / "korean.json").read_text("utf-8")))
            (translations / f"{LANGUAGE}.json").write_text(json.dumps(words, ensure_ascii=False), "utf-8")
        secret = settings.chat.secret.get_secret_value() or _kept_secret(settings.data_dir / SECRET_FILE)
    except OSError as error:
        raise StoreUnavailable(
            "데이터 폴더에 채팅 페이지의 파일을 쓸 수 없습니다. 권한과 여유 공간을 확인해 주세요."
        ) from error
    if len(secret) < SECRET_BYTES:
        raise Misconfigured(f"SMARTSTORE_CHAT__SECRET은 {SECRET_BYTES}자 이상이어야 합니다.")
    os.environ.update(  # noqa: TID251  Chainlit takes these from nowhere else
        CHAINLIT_APP_ROOT=str(home),
        CHAINLIT_AUTH_SECRET=secret,
        CHAINLIT_COOKIE_SAMESITE="none" if settings.chat.cross_site else "lax",
    )


def _chainlits_korean() -> dict[str, Any]:
    """Return Chainlit's own Korean words, for what we have none of ours."""
    found = find_spec("chainlit")  # finds it without importing it
    assert found is not None
    assert found.origin is not None
    words: dict[str, Any] = json.loads((Path(found.origin).parent / "translations" / "ko.json").read_text("utf-8"))
    return words


def _merged(words: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    merged = {name: _merged(words.get(name, {}), of) if isinstance(of, dict) else of for name, of in ours.items()}
    return words | merged


def _kept_secret(path: Path) -> str:
    """Return the secret of this data folder, made at the first start: who signed in stays so over a restart."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(SECRET_BYTES), "utf-8")
    return path.read_text("utf-8").strip()
