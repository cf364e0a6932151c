from collections.abc import Callable
from pathlib import Path

import pytest

from smartstore_indexing.errors import InvalidRequest
from smartstore_ui.writing import check_target, write_whole

BAD: dict[str, Callable[[Path], Path]] = {
    "folder missing": lambda folder: folder / "없음" / "result.json",
    "folder itself": lambda folder: folder,
    "file for a folder": lambda folder: folder / "input.jsonl" / "result.json",
    "device": lambda _: Path("/dev/null"),
    "name too long": lambda folder: folder / ("가" * 200),
    "links in a circle": lambda folder: folder / "circle.json",
    "taken": lambda folder: folder / "input.jsonl",
    "taken by another path": lambda folder: folder / "sub" / ".." / "input.jsonl",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "circle.json").symlink_to("circle.json")
    (tmp_path / "input.jsonl").write_text("그대로", encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("target", BAD.values(), ids=BAD)
def test_unwritable_target_is_refused_and_nothing_is_left(folder: Path, target: Callable[[Path], Path]) -> None:
    before = sorted(folder.rglob("*"))
    with pytest.raises(InvalidRequest):
        check_target(target(folder), [None, folder / "input.jsonl"])
    assert sorted(folder.rglob("*")) == before
    assert (folder / "input.jsonl").read_text(encoding="utf-8") == "그대로"


@pytest.mark.parametrize("name", ["new.json", "old.json", "n" * 255], ids=["new", "old", "longest name"])
def test_check_of_a_good_target_changes_nothing(folder: Path, name: str) -> None:
    (folder / "old.json").write_text("전", encoding="utf-8")
    before = sorted(folder.iterdir())
    check_target(folder / name, [folder / "input.jsonl"])
    assert sorted(folder.iterdir()) == before
    assert (folder / "old.json").read_text(encoding="utf-8") == "전"


def test_file_takes_the_place_of_the_old_one_and_keeps_its_mode(folder: Path) -> None:
    old = folder / "old.json"
    old.write_text("전", encoding="utf-8")
    old.chmod(0o640)
    write_whole(old, "후", errors="strict")
    assert old.read_text(encoding="utf-8") == "후"
    assert old.stat().st_mode & 0o777 == 0o640


def test_symbolic_link_stays_a_link(folder: Path) -> None:
    (folder / "link.json").symlink_to("old.json")
    write_whole(folder / "link.json", "후", errors="strict")
    assert (folder / "link.json").is_symlink()
    assert (folder / "old.json").read_text(encoding="utf-8") == "후"


def test_file_that_cannot_be_written_whole_leaves_the_old_one(folder: Path) -> None:
    old = folder / "old.json"
    old.write_text("전", encoding="utf-8")
    before = sorted(folder.iterdir())
    with pytest.raises(UnicodeEncodeError):
        write_whole(old, "후\ud800", errors="strict")
    assert old.read_text(encoding="utf-8") == "전"
    assert sorted(folder.iterdir()) == before
