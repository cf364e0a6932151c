"""The file of those who may sign in to the chat page: a line `name:hash` each, as Apache's `htpasswd -B` writes it."""

import getpass
import sys
from pathlib import Path

import bcrypt

from smartstore_indexing.errors import InvalidRequest, Misconfigured

MIN_CHARACTERS, MAX_BYTES = 8, 72  # bcrypt reads no more
PREFIXES = ("$2a$", "$2b$", "$2y$")


def run_user(name: str) -> int:
    """Ask for a password and print the name's line; the questions go to stderr.

    Raises:
        InvalidRequest: the name or the password cannot be used, or the two passwords differ.
    """
    if not name or ":" in name or name != name.strip():
        raise InvalidRequest("아이디에는 쌍점(:)과 앞뒤 빈칸을 쓸 수 없습니다.")
    if sys.stdin.isatty():
        password = getpass.getpass("비밀번호: ", stream=sys.stderr)
        if getpass.getpass("비밀번호 다시: ", stream=sys.stderr) != password:
            raise InvalidRequest("두 비밀번호가 다릅니다.")
    else:
        password = sys.stdin.readline().rstrip("\n")
    if len(password) < MIN_CHARACTERS or len(password.encode()) > MAX_BYTES:
        raise InvalidRequest(f"비밀번호는 {MIN_CHARACTERS}자 이상, {MAX_BYTES}바이트 이하여야 합니다.")
    sys.stdout.write(f"{name}:{bcrypt.hashpw(password.encode(), bcrypt.gensalt()).decode()}\n")
    return 0


def read_users(path: Path) -> dict[str, bytes]:
    """Return the bcrypt hash of each name in a file.

    Raises:
        Misconfigured: the file cannot be read, holds nobody, or a line is no name with a bcrypt hash.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"SMARTSTORE_CHAT__USERS 파일을 읽을 수 없습니다: {path}") from error
    users = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.startswith("#"):
            name, _, hashed = line.strip().partition(":")
            if not name or not hashed.startswith(PREFIXES):
                raise Misconfigured(
                    f"{path} {number}째 줄이 `아이디:해시` 꼴이 아닙니다. `smartstore user 아이디`로 만들어 주세요."
                )
            users[name] = hashed.encode()
    if not users:
        raise Misconfigured(f"SMARTSTORE_CHAT__USERS 파일에 사용자가 없습니다: {path}")
    return users
