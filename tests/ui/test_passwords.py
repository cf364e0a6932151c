import subprocess
from pathlib import Path

import bcrypt
import pytest
from served import PROGRAM

from smartstore_indexing.errors import Misconfigured
from smartstore_ui.passwords import read_users


def user(name: str, password: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, "user", name], input=f"{password}\n", capture_output=True, text=True, timeout=60, check=False
    )


def test_made_line_lets_the_user_in(tmp_path: Path) -> None:
    made = user("홍길동", "비밀번호 1234")
    assert made.returncode == 0, made.stderr
    (tmp_path / "users").write_text(f"# 판매팀\n\n{made.stdout}", "utf-8")
    users = read_users(tmp_path / "users")
    assert users.keys() == {"홍길동"}
    assert bcrypt.checkpw("비밀번호 1234".encode(), users["홍길동"])
    assert not bcrypt.checkpw("비밀번호 1235".encode(), users["홍길동"])


@pytest.mark.parametrize(
    ("name", "password"),
    [("a:b", "password1"), ("", "password1"), (" a", "password1"), ("a", "short"), ("a", "가" * 25)],
    ids=["colon", "empty", "blank", "short", "long"],
)
def test_name_or_password_that_cannot_be_used_is_refused_in_korean(name: str, password: str) -> None:
    made = user(name, password)
    assert made.returncode == 1
    assert made.stdout == ""
    assert made.stderr.startswith("오류: ")
    assert password not in made.stderr


@pytest.mark.parametrize("text", ["", "# 아무도\n", "a\n", "a:plain\n", ":$2b$12$x\n", "a:{SHA}x\n"])
def test_file_that_lets_nobody_in_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "users").write_text(text, "utf-8")
    with pytest.raises(Misconfigured):
        read_users(tmp_path / "users")


def test_missing_or_unreadable_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured):
        read_users(tmp_path / "nothing")
    (tmp_path / "users").write_bytes(b"\xff\xfe")
    with pytest.raises(Misconfigured):
        read_users(tmp_path / "users")
