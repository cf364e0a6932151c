"""Index workers as processes: killed at any moment, asked while people search, sent what is no request."""

import asyncio
import itertools
import json
import random
import secrets
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from brokers import until
from conftest import settings_for
from talking import MINOR
from workers import ROWS, Shared, edition, editions_in, whole

from smartstore_indexing import reading
from smartstore_indexing.broker import Broker
from smartstore_indexing.embedding import MODEL_NAME
from smartstore_indexing.loading import SAMPLE
from smartstore_indexing.messages import MAX_BODY_BYTES
from smartstore_indexing.milvus import DENSE, Collections
from smartstore_indexing.queues import INDEX, INDEX_REQUESTED, work_queues
from smartstore_ui.api.index_jobs import IndexJob, IndexJobs
from smartstore_workflows import Chatbot
from smartstore_workflows.app import build

# Each worker takes a core several seconds to start.
pytestmark = [pytest.mark.long, pytest.mark.slow, pytest.mark.timeout(400)]
SEARCHERS = 4
JOB_SECONDS = 120.0
QUESTION = "정산 내역은 언제 되나요?"


@asynccontextmanager
async def broker_of(shared: Shared) -> AsyncIterator[Broker]:
    broker = Broker(shared.settings.rabbitmq, work_queues(shared.settings.rabbitmq.max_answers))
    try:
        yield broker
    finally:
        await broker.close()


@asynccontextmanager
async def jobs_of(shared: Shared) -> AsyncIterator[IndexJobs]:
    async with broker_of(shared) as broker:
        jobs = IndexJobs(broker)
        async with jobs.open():
            yield jobs


@asynccontextmanager
async def repeating(work: Callable[[], Awaitable[None]], *, times: int = 1) -> AsyncIterator[None]:
    """Do something again and again, by so many at once, within the block; what goes wrong in it is raised."""

    async def repeat() -> None:
        while not over.is_set():
            await work()
            await asyncio.sleep(0.01)

    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for _ in range(times):
            group.create_task(repeat())
        try:
            yield
        finally:
            over.set()


class Moves:
    """The collections that the alias has named, one after the other."""

    def __init__(self, collections: Collections) -> None:
        self.seen: list[str | None] = []
        self._collections = collections

    async def look(self) -> None:
        current = await self._collections.current()
        if self.seen[-1:] != [current]:
            self.seen.append(current)


async def done(job: IndexJob) -> None:
    await until(lambda: job.ended, JOB_SECONDS)
    assert job.told.state == "succeeded", job.told


async def kill_workers(shared: Shared, times: int) -> None:
    """Kill the worker at random moments of as many reindexes, each time with another one waiting."""
    names = (f"worker-{number}" for number in itertools.count())
    workers = [shared.worker(next(names))]
    try:
        workers[0].ready()
        workers.append(shared.worker(next(names)))
        async with shared.collections() as collections, jobs_of(shared) as jobs, broker_of(shared) as broker:
            await done(await jobs.add(str(edition(shared.folder, 1)), mode="full", requested_by="시험"))
            usual = await jobs.add(str(edition(shared.folder, 2)), mode="full", requested_by="시험")
            await done(usual)
            assert usual.told.summary is not None
            for number in range(3, 3 + times):
                workers[-1].ready()
                moves = Moves(collections)
                await moves.look()
                async with repeating(moves.look):
                    mode = random.choice(("full", "incremental"))
                    job = await jobs.add(str(edition(shared.folder, number)), mode=mode, requested_by="시험")
                    await asyncio.sleep(random.uniform(0, usual.told.summary.seconds))
                    workers.pop(0).kill()
                    workers.append(shared.worker(next(names)))
                    await done(job)
                    await until_nothing_waits(broker)
                snapshot = await whole(collections, MODEL_NAME)
                assert editions_in(snapshot) == {str(number)}
                assert len(snapshot.catalog) == ROWS
                assert moves.seen == [moves.seen[0], snapshot.collection]
                assert await collections.names() == moves.seen
    finally:
        for worker in workers:
            worker.kill()


async def until_nothing_waits(broker: Broker) -> None:
    async with asyncio.timeout(JOB_SECONDS):
        while await broker.depth(INDEX):  # noqa: ASYNC110  the broker tells nobody
            await asyncio.sleep(0.02)
    assert await broker.dead_letters(INDEX, limit=1) == []


async def test_worker_killed_at_any_moment_leaves_the_new_index_whole(shared: Shared) -> None:
    await kill_workers(shared, 3)


@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_worker_killed_at_ten_moments_leaves_the_new_index_whole(shared: Shared) -> None:
    await kill_workers(shared, 10)


async def search_meanwhile(shared: Shared, reindexes: int) -> tuple[list[float], list[float]]:
    """Return the seconds of searches before, and of those during so many reindexes in a row."""
    worker = shared.worker("worker")
    try:
        worker.ready()
        async with jobs_of(shared) as jobs:
            await done(await jobs.add(str(edition(shared.folder, 1)), mode="full", requested_by="시험"))
            async with build(shared.settings) as services:
                retriever, collections = services.retriever, services.collections
                vector = (await services.vectors.of(QUESTION)).tolist()
                seconds: list[float] = []
                seen: set[str] = set()

                async def search() -> None:
                    started = time.perf_counter()
                    found = await retriever.retrieve(QUESTION)
                    seconds.append(time.perf_counter() - started)
                    editions = {faq.answer.partition("판")[0] for faq in found.catalog}
                    assert len(editions) == 1
                    assert len(found.catalog) == ROWS
                    assert found.passages
                    seen.update(editions)

                async def search_alias() -> None:
                    # As another client would, that asks Milvus by the alias.
                    hits = await asyncio.to_thread(
                        collections._client.search,
                        collections._alias,
                        data=[vector],
                        anns_field=DENSE.field,
                        limit=5,
                        search_params={"metric_type": DENSE.metric},
                    )
                    assert len(hits[0]) == 5

                async with repeating(search, times=SEARCHERS), repeating(search_alias):
                    await until(lambda: len(seconds) > 400)
                    before = len(seconds)
                    for number in range(2, 2 + reindexes):
                        await done(
                            await jobs.add(str(edition(shared.folder, number)), mode="full", requested_by="시험")
                        )
                    last = str(1 + reindexes)
                    await until(lambda: last in seen)
    finally:
        worker.kill()
    return seconds[20:before], seconds[before:]


def p95(seconds: list[float]) -> float:
    return statistics.quantiles(seconds, n=20)[-1] * 1_000


def show(capsys: pytest.CaptureFixture[str], reindexes: int, before: list[float], during: list[float]) -> None:
    with capsys.disabled():
        sys.stdout.write(
            f"\nsearches by {SEARCHERS} at once: p95 {p95(before):.1f} ms before ({len(before)}), {p95(during):.1f} ms "
            f"during {reindexes} reindexes ({len(during)}, the longest {max(during) * 1_000:.0f} ms)\n"
        )


async def test_searches_go_on_during_reindexes(shared: Shared, capsys: pytest.CaptureFixture[str]) -> None:
    show(capsys, 3, *await search_meanwhile(shared, 3))


@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_searches_go_on_during_ten_reindexes(shared: Shared, capsys: pytest.CaptureFixture[str]) -> None:
    show(capsys, 10, *await search_meanwhile(shared, 10))


def hostile_bodies(shared: Shared) -> list[bytes]:
    """Return one body of each kind that is no request that may be met."""

    def request(**changes: object) -> bytes:
        good = {"request_id": "a", "source": None, "mode": "full", "requested_by": "시험"}
        return json.dumps(good | changes).encode()

    (shared.folder / "link.jsonl").symlink_to("/etc/hostname")
    (shared.folder / "folder.jsonl").mkdir()
    (shared.folder / "code.pkl").write_bytes(b"cposix\nsystem\n(S'touch ran'\ntR.")
    paths = ["/etc/passwd", "../data/x.jsonl", "link.jsonl", "folder.jsonl", "code.pkl", "없음.jsonl", "\0", "~/x.csv"]
    addresses = [
        *("http://example.com/faq.csv", "file:///etc/passwd", "ftp://example.com/faq.csv", "https:///faq.csv"),
        *("https://127.0.0.1/faq.csv", "https://[::1]/faq.csv", "https://localhost/faq.csv", "https://0.0.0.0/faq.csv"),
        *("https://169.254.169.254/faq.csv", "https://10.0.0.1/faq.csv", "https://a:b@127.0.0.1/faq.csv"),
        *("https://[::ffff:127.0.0.1]/faq.csv", "https://2130706433/faq.csv", "data://text/plain,x.csv"),
    ]
    return [
        *(b"", b"{", b"\xff\xfe", b"null", b"[]", b'"a"', b"1", b"{}", b"[" * 20_000, b"x" * (MAX_BODY_BYTES + 1)),
        *(request(source=str(shared.folder / path)) for path in paths),
        *(request(source=address) for address in addresses),
        *(request(source=source) for source in (1, [], {}, "", "x" * 5_000, True)),
        *(request(mode=mode) for mode in ("rollback", None, 1, "FULL", [])),
        *(request(request_id=request_id) for request_id in ("", "한글", "a b", "a" * 129, None, 7)),
        *(request(requested_by=by) for by in ("", None, "x" * 201, {})),
        *(request(**more) for more in ({"extra": 1}, {"__class__": "x"}, {"format": 2})),
        secrets.token_bytes(2_000),
    ]


async def send_hostile(shared: Shared, count: int) -> None:
    bodies = hostile_bodies(shared)
    worker = shared.worker("worker")
    try:
        async with broker_of(shared) as broker, jobs_of(shared) as jobs, shared.collections() as collections:
            for number, body in zip(range(count), itertools.cycle(bodies), strict=False):
                await broker.publish(INDEX_REQUESTED, body, message_id=str(number))
            worker.ready()
            async with asyncio.timeout(JOB_SECONDS):
                while len(await broker.dead_letters(INDEX, limit=count + 1)) < count:  # noqa: ASYNC110  as above
                    await asyncio.sleep(0.2)
            letters = await broker.dead_letters(INDEX, limit=count + 1)
            assert {letter.message_id for letter in letters} == {str(number) for number in range(count)}
            assert all(letter.reason.endswith(".") and letter.attempts == 1 for letter in letters)
            assert await collections.names() == []
            assert not (shared.folder / "ran").exists()
            assert worker.alive
            job = await jobs.add(None, mode="incremental", requested_by="시험")
            await until(lambda: job.told.state == "running", JOB_SECONDS)
            assert await asyncio.to_thread(worker.terminate) == 0
            await done(job)  # what was begun was finished
            assert editions_in(await whole(collections, MODEL_NAME)) == {"0"}
        assert [line for line in worker.lines() if line["level"] in ("error", "critical")] == []
        assert worker.said()[-1] == "worker ended"
    finally:
        worker.kill()


async def test_hostile_messages_are_dead_letters_and_the_worker_lives_until_it_is_told_to_end(shared: Shared) -> None:
    await send_hostile(shared, 100)


@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_a_thousand_hostile_messages_are_dead_letters_and_the_worker_lives(shared: Shared) -> None:
    await send_hostile(shared, 1_000)


async def test_cached_answer_of_a_changed_faq_is_not_given_again(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "FOLLOW_SECONDS", 0.0)
    async with Chatbot(settings_for(data_dir)) as bot:
        first, again = (await bot.ask(MINOR)).answer, (await bot.ask(MINOR)).answer
        assert (first.cached, again.cached, again.text) == (False, True, first.text)
        title = (await bot.faq(first.citations[0])).title
        rows = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]
        for row in rows:
            if row["question"] == title:
                row["answer"] = "이제는 온라인에서만 신청할 수 있습니다."
        path = tmp_path / "changed.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        summary = await bot.services.builder.build(path)
        assert (summary.changed, summary.switched) == (1, True)
        changed = (await bot.ask(MINOR)).answer
        assert not changed.cached
        assert "온라인에서만" in changed.text
        await bot.services.builder.rollback()
        assert (await bot.ask(MINOR)).answer.text == first.text
