"""`smartstore reindex` and `smartstore index --rollback` as commands, with a broker and without one."""

import asyncio
import secrets
import signal
from pathlib import Path

import pytest
from brokers import RabbitProcess
from conftest import settings_for
from milvuses import MilvusProcess
from program import Result, World
from pydantic import SecretStr
from workers import edition, sharing, working

from smartstore_indexing.errors import InvalidRequest, Misconfigured
from smartstore_indexing.opening import opened_queues
from smartstore_indexing.queues import INDEX
from smartstore_indexing.setting_groups import RabbitMQSettings
from smartstore_indexing.settings import load_settings
from smartstore_indexing.wiring import opened_builder
from smartstore_ui.indexing import run_index
from smartstore_ui.reindexing import run_reindex
from smartstore_ui.working import run_worker

pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(300)]
ROWS = 8


@pytest.fixture(scope="module")
async def with_broker(
    rabbit: RabbitProcess, milvus: MilvusProcess, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Result]:
    """Return what came of the commands where a worker takes the requests."""
    prefix = f"test-{secrets.token_hex(8)}"
    rabbitmq = RabbitMQSettings(url=SecretStr(rabbit.url), prefix=prefix)
    shared = sharing(tmp_path_factory.mktemp("shared"), milvus, rabbitmq)
    world = World(shared.folder, shared.settings.data_dir)
    (shared.folder / "broken.jsonl").write_text('{"question', encoding="utf-8")
    edition(shared.folder, 1, ROWS)

    def watched() -> Result:
        with world.terminal("reindex", "edition-1.jsonl", "--full", "--watch", **shared.environment) as terminal:
            screen = terminal.rest()
            return Result(terminal.code or 0, screen, "")

    def left_alone() -> Result:
        with world.terminal("reindex", "--watch", **shared.environment) as terminal:
            screen = terminal.until("worker index")
            terminal.child.kill(signal.SIGINT)
            rest = terminal.rest()
            return Result(terminal.code or 0, f"{screen}{rest}", "")

    results = {"nobody works": await asyncio.to_thread(left_alone)}
    async with working(shared):
        watching = asyncio.to_thread(watched)
        broken = asyncio.to_thread(world.run, "reindex", "broken.jsonl", "--watch", **shared.environment)
        results |= dict(zip(("watched", "broken"), await asyncio.gather(watching, broken), strict=True))
    return results


def test_watched_request_shows_its_progress_and_what_was_done(with_broker: dict[str, Result]) -> None:
    watched = with_broker["watched"]
    assert watched.code == 0
    assert "색인을 요청했습니다. 작업 ID" in watched.out
    assert f"{2 * ROWS}/{2 * ROWS}" in watched.out
    assert f"FAQ {ROWS}건: 추가 {ROWS}" in watched.out


def test_watched_request_that_fails_says_why_and_exits_with_1(with_broker: dict[str, Result]) -> None:
    assert with_broker["broken"].code == 1
    assert with_broker["broken"].complains_in_korean
    assert "broken.jsonl" in with_broker["broken"].err


def test_watched_request_that_nobody_takes_says_so_and_can_be_left(with_broker: dict[str, Result]) -> None:
    assert with_broker["nobody works"].code == 130
    assert "아직 요청을 받은 워커가 없습니다" in with_broker["nobody works"].out


def test_request_that_is_not_watched_returns_at_once_and_waits_for_a_worker(
    here: Path, monkeypatch: pytest.MonkeyPatch, rabbit: RabbitProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SMARTSTORE_RABBITMQ__URL", rabbit.url)
    monkeypatch.setenv("SMARTSTORE_RABBITMQ__PREFIX", f"test-{secrets.token_hex(8)}")

    async def waiting() -> int:
        async with opened_queues(load_settings()) as queues:
            return await queues.depth(INDEX)

    assert run_reindex("faq.csv", full=True, watch=False) == 0
    assert asyncio.run(waiting()) == 1
    assert "작업 ID" in capsys.readouterr().err


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder without a .env file, and name a data folder in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMARTSTORE_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def test_without_a_broker_the_command_indexes_itself(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_reindex(str(edition(here, 0, ROWS)), full=False, watch=False) == 0
    assert f"FAQ {ROWS}건: 추가 {ROWS}" in capsys.readouterr().out


def test_rollback_puts_the_index_before_to_use_again(tmp_path: Path) -> None:
    world = World.make(tmp_path / "world")

    async def build(*numbers: int) -> list[bool]:
        async with opened_builder(settings_for(world.data)) as builder:
            return [(await builder.build(edition(world.folder, number, ROWS))).switched for number in numbers]

    asyncio.run(build(0, 1))
    done = world.run("index", "--rollback")
    assert (done.code, done.err) == (0, "")
    assert f"이전 색인으로 되돌렸습니다. FAQ {ROWS}건" in done.out
    assert asyncio.run(build(0)) == [False]


def test_rollback_of_a_file_is_a_contradiction() -> None:
    with pytest.raises(InvalidRequest, match="--rollback"):
        run_index(Path("faq.csv"), full=False, as_json=False, rollback=True)


def test_worker_without_a_broker_says_what_it_needs(here: Path) -> None:
    with pytest.raises(Misconfigured, match="SMARTSTORE_RABBITMQ__URL"):
        run_worker("index")
