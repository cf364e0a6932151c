"""The page's own files: Chainlit's programs in Korean, packed once, and what stands in the public folder."""

import asyncio
import gzip
import re
from functools import cache
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response

PACKED = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css"}
FOR_EVER = "public, max-age=31536000, immutable"  # the names of built files hold their hash
FOR_AN_HOUR = "public, max-age=3600"
GZIP_LEVEL = 6
# What Chainlit's programs say in English whatever the language: what it is in them, and what we say.
WORDS = {
    rb'"Couldn\'t resume chat: "\s*\+\s*[\w$]+': '"지난 대화를 열지 못했습니다"',
    rb'"Couldn\'t resume chat"': '"지난 대화를 열지 못했습니다"',
    rb'"Failed to copy: "\s*\+\s*String\([\w$]+\)': '"복사하지 못했습니다"',
    rb'"Error fetching threads: "\s*\+\s*[\w$]+': '"대화를 찾지 못했습니다"',
    rb'"Toggle Sidebar"': '"지난 대화 열고 닫기"',
    rb'"Toggle theme"': '"화면 테마 바꾸기"',
    rb'"Select profile"': '"답변 방식 고르기"',
    rb'children:\s*"Close"': 'children:"닫기"',
    rb"alt:`Avatar for \$\{[^`]*`": 'alt:""',  # the answer beside it says who speaks
    rb'alt:"(?:logo|Image|user image)"': 'alt:""',
    rb'"No authentication token provided\."': '"챗봇에 들어가지 못했습니다. 페이지를 새로 고쳐 주세요."',
}


class Folder:
    """Serves the files of one folder."""

    def __init__(self, folder: Path, *, lives: str) -> None:
        """Serve what is below `folder`, to be kept by browsers as `lives` says (Cache-Control)."""
        self._folder = folder.resolve()
        self._lives = lives

    async def serve(self, request: Request) -> Response:
        """Return the file that the request's path names; 404 for anything outside the folder."""
        path = (self._folder / request.path_params["path"]).resolve()
        if not path.is_relative_to(self._folder) or not path.is_file():
            raise HTTPException(404)
        headers = {"Cache-Control": self._lives, "Cross-Origin-Resource-Policy": "cross-origin"}
        kind = PACKED.get(path.suffix)
        if kind is None or "gzip" not in request.headers.get("accept-encoding", ""):
            return FileResponse(path, headers=headers)
        packed = await asyncio.to_thread(_packed, path)
        return Response(
            packed, media_type=kind, headers={**headers, "Content-Encoding": "gzip", "Vary": "Accept-Encoding"}
        )


@cache
def _packed(path: Path) -> bytes:
    """Return a program or style sheet, in Korean, gzipped; made once a process."""
    return gzip.compress(in_korean(path.read_bytes()), GZIP_LEVEL)


def in_korean(program: bytes) -> bytes:
    """Return one of Chainlit's programs with its English words replaced."""
    for english, korean in WORDS.items():
        program = re.sub(english, korean.encode().replace(b"\\", rb"\\"), program)
    return program
