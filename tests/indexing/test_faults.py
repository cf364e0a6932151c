"""Full disks, folders that cannot be written, processes that are stopped: the index in use outlives them all."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pexpect
import pytest
from conftest import settings_for, wait_until

from smartstore_indexing.errors import FolderInUse, StoreUnavailable
from smartstore_indexing.holding import HOLDER, held
from smartstore_indexing.loading import SAMPLE
from smartstore_workflows.app import Services, build

# The session's index of the sample FAQ and a process of the program each take some 10 s on a busy machine.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

QUESTION = "미성년자도 판매 회원 등록이 가능한가요?"
SAMPLE_FAQS = len(SAMPLE.read_text(encoding="utf-8").splitlines())
FEW = 12
SECONDS = 120


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file with the first rows of the sample FAQ: indexing it embeds nothing and writes little."""
    path = tmp_path_factory.mktemp("few") / "few.jsonl"
    path.write_text("\n".join(SAMPLE.read_text(encoding="utf-8").splitlines()[:FEW]), encoding="utf-8")
    return path


async def check_whole(services: Services, faqs: int) -> None:
    """Check that the index in use has so many FAQs, and that some of them are found by their own vector."""
    snapshot = await services.reader.snapshot()
    assert len(snapshot.catalog) == faqs
    assert len(await services.collections.names()) <= 2
    for index in snapshot.parts.values():
        for vector in index.vectors[:: faqs // FEW]:
            nearest = await services.collections.nearest(snapshot.collection, vector, limit=1)
            assert nearest[0].score > 0.999


async def check_reopened(data_dir: Path, few: Path) -> None:
    """Check that a new start reads the whole old index, and that the next build then works and clears up."""
    async with build(settings_for(data_dir)) as services:
        await check_whole(services, SAMPLE_FAQS)
        await services.builder.build(few)
    async with build(settings_for(data_dir)) as services:
        await check_whole(services, FEW)


# On a full disk, in this process


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow past so many bytes, as on a disk that is full."""
    sys.dont_write_bytecode = True  # else a module that is imported meanwhile is cached cut off
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sys.dont_write_bytecode = False


# The new index's schema has 3 KB, its vectors 37 KB, its rows 85 KB, and 110 KB in the write-ahead log.
@pytest.mark.parametrize("size", [0, 20_000, 90_000])
async def test_full_disk_leaves_the_index_in_use_as_it_was(data_dir: Path, few: Path, size: int) -> None:
    async with build(settings_for(data_dir)) as services:
        before = await services.collections.current()
        with largest_file(size):
            with pytest.raises(StoreUnavailable, match="디스크 여유 공간"):
                await services.builder.build(few)
            assert await services.collections.current() == before
            await check_whole(services, SAMPLE_FAQS)
    await check_reopened(data_dir, few)


async def test_build_works_as_soon_as_there_is_room_again(data_dir: Path, few: Path) -> None:
    async with build(settings_for(data_dir)) as services:
        with largest_file(60_000), pytest.raises(StoreUnavailable):
            await services.builder.build(few)
        summary = await services.builder.build(few)
        assert summary.faqs == FEW
        assert await services.collections.count(str(await services.collections.current())) == 2 * FEW
        assert len(await services.collections.names()) == 2


def test_folder_is_held_by_one_at_a_time_and_free_again_afterwards(tmp_path: Path) -> None:
    with held(tmp_path), pytest.raises(FolderInUse, match=f"PID {os.getpid()}"), held(tmp_path):
        raise AssertionError
    with held(tmp_path):
        assert json.loads((tmp_path / HOLDER).read_text(encoding="utf-8"))["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"pid": 1}', "\udcff"])
def test_holder_that_cannot_be_read_is_another_process(tmp_path: Path, content: str) -> None:
    with held(tmp_path):
        (tmp_path / HOLDER).write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(FolderInUse, match="다른 프로세스가"), held(tmp_path):
            raise AssertionError


def test_folder_is_held_on_a_full_disk_too(tmp_path: Path) -> None:
    with largest_file(0), held(tmp_path), pytest.raises(FolderInUse), held(tmp_path):
        raise AssertionError


@pytest.mark.parametrize("folder", [Path("/proc/smartstore"), Path("/proc/self/status/data"), Path("/dev/null")])
def test_folder_that_cannot_be_written_is_named(folder: Path) -> None:
    with pytest.raises(StoreUnavailable, match=f"{folder}에 쓸 수 없습니다"), held(folder):
        raise AssertionError


# The program, in processes of its own


@dataclass(frozen=True)
class Ended:
    """How a process of the program ended."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """Return what it said on stderr, having checked that it failed with a Korean sentence and no traceback."""
        assert self.code != 0
        assert "Traceback" not in self.err
        assert "오류: " in self.err
        return self.err


def started(data_dir: Path, *arguments: str | Path, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """Start the program on a data folder; `before` stands before the command."""
    return subprocess.Popen(
        # SIGINT is at its default, even where the tests were started in the background.
        ["env", "--default-signal=INT", *before, sys.executable, "-m", "smartstore_ui.cli", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=data_dir.parent if data_dir.parent.is_dir() else "/",
        env=environment(data_dir),
    )


def environment(data_dir: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "LANG": "C.UTF-8", "HOME": "/nonexistent", "SMARTSTORE_DATA_DIR": str(data_dir)}


def ended(process: subprocess.Popen[str]) -> Ended:
    try:
        out, err = process.communicate(timeout=SECONDS)
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return Ended(process.returncode, out, err)


def signalled(process: subprocess.Popen[str], by: signal.Signals, when: Callable[[], bool]) -> Ended:
    """Send the process a signal as soon as a condition holds; it must not have ended before."""
    try:
        wait_until(lambda: when() or process.poll() is not None, SECONDS)
        assert process.poll() is None, "ended too early"
        process.send_signal(by)
    except BaseException:
        process.kill()
        raise
    return ended(process)


def is_writing(data_dir: Path) -> bool:
    """Tell whether a second collection is there; its indexes alone take Milvus's client another second."""
    return len(list((data_dir / "milvus.db" / "collections").iterdir())) == 2


def full_disk(data_dir: Path, few: Path, kilobytes: int) -> Ended:
    limited = ("bash", "-c", 'ulimit -f "$0" && PYTHONDONTWRITEBYTECODE=1 exec "$@"', str(kilobytes))
    return ended(started(data_dir, "index", few, before=limited))


def interrupted_embedding(data_dir: Path, few: Path) -> Ended:
    """Press Ctrl-C in a terminal that shows the first progress of the embedding."""
    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "smartstore_ui.cli", "index", "--full"],
        cwd=str(data_dir.parent),
        env=environment(data_dir),  # type: ignore[arg-type]  # pexpect takes a mapping, its stubs os.environ's type
        encoding="utf-8",
        timeout=SECONDS,
    )
    terminal.expect("임베딩")
    terminal.sendintr()
    terminal.expect(pexpect.EOF)
    terminal.close()
    return Ended(terminal.exitstatus, "", terminal.before)


def interrupted_writing(data_dir: Path, few: Path) -> Ended:
    return signalled(started(data_dir, "index", few), signal.SIGINT, lambda: is_writing(data_dir))


def killed_writing(data_dir: Path, few: Path) -> Ended:
    return signalled(started(data_dir, "index", few), signal.SIGKILL, lambda: is_writing(data_dir))


def held_folder(data_dir: Path, few: Path) -> Ended:
    with held(data_dir):
        return ended(started(data_dir, "index", few))


def below_a_file(data_dir: Path, few: Path) -> Ended:
    return ended(started(few / "data", "index", few))


RUNS: dict[str, Callable[[Path, Path], Ended]] = {
    "full disk, 60 KB": partial(full_disk, kilobytes=60),
    "held folder": held_folder,
    "interrupted embedding": interrupted_embedding,
    "killed writing": killed_writing,
}
MORE_RUNS: dict[str, Callable[[Path, Path], Ended]] = {
    "full disk, 1 KB": partial(full_disk, kilobytes=1),
    "full disk, 36 KB": partial(full_disk, kilobytes=36),
    "full disk, 90 KB": partial(full_disk, kilobytes=90),
    "folder below a file": below_a_file,
    "interrupted writing": interrupted_writing,
}


@dataclass(frozen=True)
class Run:
    """One run of the program into a fault, and the data folder that it left."""

    ended: Ended
    data_dir: Path


def run_all(kinds: dict[str, Callable[[Path, Path], Ended]], indexed_dir: Path, few: Path) -> dict[str, Run]:
    """Run the program into every fault, two at a time, each with a data folder of its own."""
    folders = {name: Path(shutil.copytree(indexed_dir, few.parent / name / "data")) for name in kinds}
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda name: kinds[name](folders[name], few), kinds)
        return {name: Run(end, folders[name]) for name, end in zip(kinds, found, strict=True)}


@pytest.fixture(scope="module")
def runs(indexed_dir: Path, few: Path) -> dict[str, Run]:
    return run_all(RUNS, indexed_dir, few)


@pytest.fixture(scope="module")
def more_runs(indexed_dir: Path, few: Path) -> dict[str, Run]:
    return run_all(MORE_RUNS, indexed_dir, few)


def test_program_names_the_process_that_holds_the_folder(runs: dict[str, Run]) -> None:
    assert runs["held folder"].ended.code == 3
    assert f"PID {os.getpid()}" in runs["held folder"].ended.complaint


async def test_program_whose_disk_is_full_says_so_and_leaves_the_old_index(runs: dict[str, Run], few: Path) -> None:
    check_full_disk(runs["full disk, 60 KB"].ended)
    answered = ended(started(runs["full disk, 60 KB"].data_dir, "ask", QUESTION, "--json"))
    events = {event["event"]: event["data"] for event in map(json.loads, answered.out.splitlines())}
    assert answered.code == 0
    assert events["answer"]["kind"] == "answered"
    assert "미성년자" in events["sources"][0]["question"]
    await check_reopened(runs["full disk, 60 KB"].data_dir, few)


async def test_interrupted_program_says_so_and_leaves_the_old_index(runs: dict[str, Run], few: Path) -> None:
    check_interrupted(runs["interrupted embedding"].ended)
    await check_reopened(runs["interrupted embedding"].data_dir, few)


async def test_killed_program_leaves_the_old_index(runs: dict[str, Run], few: Path) -> None:
    assert runs["killed writing"].ended.code == -signal.SIGKILL
    await check_reopened(runs["killed writing"].data_dir, few)


@pytest.mark.long
@pytest.mark.parametrize("name", [name for name in MORE_RUNS if name.startswith("full disk")])
async def test_program_finds_its_disk_full_at_any_file(more_runs: dict[str, Run], few: Path, name: str) -> None:
    check_full_disk(more_runs[name].ended)
    await check_reopened(more_runs[name].data_dir, few)


@pytest.mark.long
async def test_program_interrupted_while_it_writes_leaves_the_old_index(more_runs: dict[str, Run], few: Path) -> None:
    check_interrupted(more_runs["interrupted writing"].ended)
    await check_reopened(more_runs["interrupted writing"].data_dir, few)


@pytest.mark.long
def test_program_names_the_folder_that_it_cannot_write(more_runs: dict[str, Run]) -> None:
    assert more_runs["folder below a file"].ended.code == 1
    assert "SMARTSTORE_DATA_DIR" in more_runs["folder below a file"].ended.complaint


def check_full_disk(found: Ended) -> None:
    assert found.code == 1
    assert "디스크 여유 공간" in found.complaint


def check_interrupted(found: Ended) -> None:
    assert found.code == 130
    assert "중단했습니다" in found.err
    assert "Traceback" not in found.err
