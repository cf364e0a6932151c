"""Index requests from their publishing to their end: in one process, and between processes through RabbitMQ."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from brokers import by_way_of, until
from conftest import free_port
from llama_index.core.bridge.pydantic import PrivateAttr
from stores import eventually
from workers import edition

from smartstore_indexing.broker import Broker
from smartstore_indexing.building import IndexBuilder
from smartstore_indexing.checking import IndexCheck
from smartstore_indexing.embedding import E5Embedding
from smartstore_indexing.errors import Conflict, InvalidRequest, Overloaded, StoreUnavailable, UnknownResource
from smartstore_indexing.index_sources import fetched
from smartstore_indexing.index_worker import PREFETCH, IndexWorker
from smartstore_indexing.korean import Morphemes
from smartstore_indexing.local_queues import LocalQueues
from smartstore_indexing.messages import IndexRequested, written
from smartstore_indexing.milvus import Collections
from smartstore_indexing.queues import (
    INDEX,
    INDEX_FAILED,
    INDEX_PROGRESS,
    INDEX_SUCCEEDED,
    Delivery,
    Queues,
    WorkQueue,
    named,
    work_queues,
)
from smartstore_indexing.setting_groups import RabbitMQSettings
from smartstore_ui.api.index_jobs import IndexJob, IndexJobs

pytestmark = [pytest.mark.long, pytest.mark.slow]
ROWS = 4
INDEXING = replace(named(work_queues(1), INDEX), retry_seconds=(0.1, 0.3))
ATTEMPTS = 3


class HeldEmbedding(E5Embedding):
    """The real embedding, which waits where it is told to."""

    _go: asyncio.Event = PrivateAttr(default_factory=asyncio.Event)
    _begun: int = PrivateAttr(default=0)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        self._begun += 1
        await self._go.wait()
        return await super()._aget_text_embeddings(texts)

    def hold(self) -> None:
        self._go.clear()

    def release(self) -> None:
        self._go.set()


@dataclass
class World:
    """The queues as one process after the other opens them, and an alias of the test's own."""

    folder: Path
    collections: Collections
    embedding: HeldEmbedding
    morphemes: Morphemes
    open_queues: Callable[[], Queues]
    golden: Path | None = None
    opened: list[Queues] = field(default_factory=list)

    def queues(self) -> Queues:
        """Return the queues of one more process."""
        self.opened.append(self.open_queues())
        return self.opened[-1]

    def worker(self, queues: Queues, collections: Collections | None = None) -> IndexWorker:
        parts: dict[str, Any] = {
            "collections": collections or self.collections,
            "embedding": self.embedding,
            "morphemes": self.morphemes,
        }
        check = IndexCheck(**parts, golden=self.golden, golden_hit=0.75)
        builder = IndexBuilder(**parts, check=check)

        def fetch(source: str | None):  # type: ignore[no-untyped-def]  # a context manager
            return fetched(source or str(self.edition(0)), allowed_folders=[self.folder])

        return IndexWorker(builder=builder, queues=queues, fetch=fetch, attempts=ATTEMPTS)

    @asynccontextmanager
    async def working(self, collections: Collections | None = None) -> AsyncIterator[None]:
        """Work on the requests within the block, as one process."""
        queues, stopping = self.queues(), asyncio.Event()
        worker = self.worker(queues, collections)
        consumer = queues.consume(INDEX, worker, prefetch=PREFETCH, stopping=stopping, drain_seconds=20.0)
        task = asyncio.create_task(consumer)
        try:
            yield
        finally:
            stopping.set()
            async with asyncio.timeout(30):
                await task

    @asynccontextmanager
    async def jobs(self) -> AsyncIterator[IndexJobs]:
        """Yield the jobs as one process sees them."""
        jobs = IndexJobs(self.queues())
        async with jobs.open():
            yield jobs

    def edition(self, number: int) -> Path:
        return edition(self.folder, number, ROWS)

    async def answers(self) -> set[str]:
        """Return the editions of the index in use."""
        name = await self.collections.current()
        assert name is not None
        await self.collections.load(name)
        return {faq.answer.partition("판")[0] for faq in await self.collections.faqs(name)}


@pytest.fixture(scope="module")
async def store(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Collections]:
    """Open one Milvus Lite for all tests of this file."""
    uri = str(tmp_path_factory.mktemp("store") / "milvus.db")
    collections = await Collections.open(uri=uri, token="", alias="faq", timeout_seconds=30)
    yield collections
    await collections.close()


@pytest.fixture(scope="module")
def morphemes() -> Morphemes:
    """Load Kiwi, which holds up a process for longer than the tests' heartbeat."""
    found = Morphemes()
    found.load()
    return found


def like(collections: Collections, kind: type[Collections], alias: str) -> Collections:
    """Return collections of another kind, or behind another alias, in the same store."""
    return kind(collections._client, uri=collections._uri, token="", alias=alias, timeout_seconds=30)


@pytest.fixture(params=["local", "rabbitmq"])
async def world(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    store: Collections,
    morphemes: Morphemes,
    rabbit_settings: RabbitMQSettings,
) -> AsyncIterator[World]:
    """Yield a world where nothing was ever indexed."""
    local = LocalQueues([INDEXING])
    made = World(
        folder=tmp_path,
        collections=like(store, Collections, rabbit_settings.prefix.replace("-", "_")),
        embedding=HeldEmbedding(),
        morphemes=morphemes,
        open_queues=lambda: local if request.param == "local" else Broker(rabbit_settings, [INDEXING]),
    )
    made.embedding.release()
    yield made
    for queues in made.opened:
        await queues.close()


async def ended(*jobs: IndexJob, seconds: float = 30.0) -> None:
    await until(lambda: all(job.ended for job in jobs), seconds)


async def test_job_is_seen_from_its_request_to_its_end_by_every_process(world: World) -> None:
    async with world.jobs() as mine, world.jobs() as others:
        job = await mine.add(str(world.edition(1)), mode="incremental", requested_by="시험")
        assert mine.get(job.job_id) is job
        await until(lambda: job.job_id in others._jobs)
        theirs = others.get(job.job_id)
        async with world.working():
            states = [told.state async for told in others.follow(theirs, 30.0) if told is not None]
        await ended(job)
    assert sorted(set(states), key=states.index) == ["queued", "running", "succeeded"]
    assert theirs.told == job.told
    assert job.told.summary is not None
    assert (job.told.summary.added, job.told.summary.faqs, job.told.summary.switched) == (ROWS, ROWS, True)
    assert await world.answers() == {"1"}


async def test_request_without_a_source_indexes_the_configured_one(world: World) -> None:
    async with world.jobs() as jobs, world.working():
        job = await jobs.add(None, mode="full", requested_by="시험")
        await ended(job)
    assert await world.answers() == {"0"}


async def test_request_that_cannot_be_met_says_why_and_is_a_dead_letter(world: World) -> None:
    (world.folder / "broken.jsonl").write_text('{"question', encoding="utf-8")
    paths = [world.folder.parent / "outside.jsonl", world.folder / "broken.jsonl", world.folder / "missing.jsonl"]
    async with world.jobs() as jobs, world.working():
        sources = [*map(str, paths), "http://example.com/faq.csv", "https://127.0.0.1/faq.csv"]
        made = [await jobs.add(source, mode="full", requested_by="시험") for source in sources]
        await ended(*made)
        queues = world.queues()
        await eventually(lambda: has_dead(queues, len(sources)))
    errors = {job.job_id: job.told.error for job in made}
    for letter in await queues.dead_letters(INDEX, limit=10):
        error = errors.pop(letter.message_id)
        assert error is not None
        assert (error.code, error.message, letter.attempts) == ("invalid_request", letter.reason, 1)
    assert {job.told.state for job in made} == {"failed"}
    assert await world.collections.names() == []


async def has_dead(queues: Queues, count: int) -> bool:
    return len(await queues.dead_letters(INDEX, limit=count + 1)) == count


async def test_index_that_misses_the_golden_questions_is_given_up_and_the_one_in_use_stays(world: World) -> None:
    async with world.jobs() as jobs:
        async with world.working():
            await ended(await jobs.add(str(world.edition(1)), mode="full", requested_by="시험"))
        before = await world.collections.current()
        world.golden = world.folder / "golden.jsonl"
        lines = [{"query": "정산 관리는 언제 되나요?", "gold": [0]}, {"query": "정산 언제", "gold": [0]}]
        world.golden.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        other = world.folder / "other.jsonl"
        questions = [*(f"주차장 {number}번은 어디인가요?" for number in range(15)), "화장실은 어디인가요?"]
        rows = [
            {"question": "네?", "answer": "아니요."},
            *({"question": q, "answer": "저기입니다."} for q in questions),
        ]
        other.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        async with world.working():
            job = await jobs.add(str(other), mode="incremental", requested_by="시험")
            await ended(job)
            queues = world.queues()
            await eventually(lambda: has_dead(queues, 1))
    assert job.told.error is not None
    assert job.told.error.code == "index_rejected"
    assert "0.0%" in job.told.error.message
    assert await world.collections.current() == before
    assert await world.collections.names() == [before]
    assert await world.answers() == {"1"}


async def test_requests_that_come_during_a_build_share_the_next_one_and_each_is_told(world: World) -> None:
    async with world.jobs() as jobs, world.working():
        world.embedding.hold()
        first = await jobs.add(str(world.edition(1)), mode="full", requested_by="시험")
        await until(lambda: world.embedding._begun == 1)
        others = [await jobs.add(str(world.edition(1)), mode="full", requested_by="시험") for _ in range(20)]
        await until(lambda: first.told.state == "running")
        world.embedding.release()
        await ended(first, *others)
    assert world.embedding._begun == 2  # each edition's texts fit one batch
    assert {job.told.state for job in (first, *others)} == {"succeeded"}
    assert len({job.told.summary for job in others}) == 1


async def test_requests_of_other_sources_are_met_one_after_the_other(world: World) -> None:
    async with world.jobs() as jobs, world.working():
        made = [await jobs.add(str(world.edition(number)), mode="full", requested_by="시험") for number in range(2)]
        await ended(*made)
    assert world.embedding._begun == 2
    assert await world.answers() == {"1"}


class FailsFirst(Collections):
    """Does not answer at first."""

    failures = 1

    async def create(self, *arguments: object) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("Milvus 서버가 응답하지 않습니다.")
        await super().create(*arguments)  # type: ignore[arg-type]


class BugFirst(FailsFirst):
    """Has a bug at first."""

    async def create(self, *arguments: object) -> None:
        try:
            await super().create(*arguments)
        except StoreUnavailable:
            raise RuntimeError("비밀") from None


async def test_request_is_tried_again_when_that_may_help(world: World) -> None:
    failing = like(world.collections, FailsFirst, world.collections._alias)
    async with world.jobs() as jobs, world.working(failing):
        job = await jobs.add(str(world.edition(1)), mode="full", requested_by="시험")
        await until(lambda: job.told.progress.stage == "retry")
        assert (job.told.progress.done, job.told.progress.total) == (1, ATTEMPTS)
        await ended(job)
    assert job.told.state == "succeeded"
    assert await world.answers() == {"1"}


async def test_request_that_never_succeeds_is_given_up_until_it_is_given_back(world: World) -> None:
    failing = like(world.collections, BugFirst, world.collections._alias)
    failing.failures = ATTEMPTS  # type: ignore[attr-defined]  # it is of that kind
    async with world.jobs() as jobs, world.working(failing):
        job = await jobs.add(str(world.edition(1)), mode="full", requested_by="시험")
        await ended(job)
        queues = world.queues()
        await eventually(lambda: has_dead(queues, 1))
    assert job.told.error is not None
    assert job.told.error.code == "internal"
    assert "비밀" not in job.told.error.message
    assert await queues.requeue(INDEX, job.job_id)
    async with world.jobs() as jobs, world.working(failing):
        await until(lambda: job.job_id in jobs._jobs)
        again = jobs.get(job.job_id)
        await ended(again)
    assert again.told.state == "succeeded"


async def test_message_that_comes_again_after_its_work_ends_the_same_and_moves_nothing(world: World) -> None:
    asked = IndexRequested(request_id="a", source=str(world.edition(1)), mode="full", requested_by="시험")
    queues = world.queues()
    worker = world.worker(queues)
    async with queues.subscribe(INDEX_SUCCEEDED) as events:
        await worker(Delivery("a", written(asked), attempt=1, redelivered=False))
        used = await world.collections.current()
        await world.worker(queues)(Delivery("a", written(asked), attempt=1, redelivered=True))
        async with asyncio.timeout(10):
            told = [json.loads((await anext(events))[1]) for _ in range(2)]
    for event in told:
        assert event["summary"].pop("seconds") > 0
    assert told[0] == told[1]
    assert await world.collections.names() == [used] == [await world.collections.current()]


async def test_request_whose_worker_is_cancelled_comes_again(world: World) -> None:
    async with world.jobs() as jobs:
        world.embedding.hold()
        job = await jobs.add(str(world.edition(1)), mode="full", requested_by="시험")
        queues = world.queues()
        consumer = queues.consume(
            INDEX, world.worker(queues), prefetch=PREFETCH, stopping=asyncio.Event(), drain_seconds=10.0
        )
        task = asyncio.create_task(consumer)
        await until(lambda: world.embedding._begun == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await world.collections.names() == []
        world.embedding.release()
        async with world.working():
            await ended(job)
    assert job.told.state == "succeeded"
    assert await queues.depth(INDEX) == 0
    assert await queues.dead_letters(INDEX, limit=1) == []


async def test_progress_is_told_a_few_times_a_second(world: World) -> None:
    queues, path = world.queues(), edition(world.folder, 1, rows=30)
    async with queues.subscribe(INDEX_PROGRESS, INDEX_SUCCEEDED) as events, world.jobs() as jobs:
        async with world.working():
            job = await jobs.add(str(path), mode="full", requested_by="시험")
            await ended(job)
        bodies = []
        async for key, body in events:
            if key == INDEX_SUCCEEDED:
                break
            bodies.append(json.loads(body))
    assert job.told.summary is not None
    assert 1 <= len(bodies) <= job.told.summary.seconds / 0.3 + 2
    assert bodies[0] == {"request_id": job.job_id, "stage": "read", "done": 0, "total": 0}
    assert {body["stage"] for body in bodies} <= {"read", "embed", "write"}


async def test_rollback_is_told_to_every_process(world: World) -> None:
    queues = world.queues()
    builder = world.worker(queues)._builder
    for number in (1, 2):
        await builder.build(world.edition(number))
    async with world.jobs() as mine, world.jobs() as others:
        job = await mine.add_done(await builder.rollback())
        await until(lambda: job.job_id in others._jobs and others.get(job.job_id).ended)
        assert others.get(job.job_id).told == job.told
    assert job.told.state == "succeeded"
    assert await world.answers() == {"1"}
    with pytest.raises(Conflict, match="되돌릴 이전 색인이 없습니다"):
        await builder.rollback()


async def test_events_of_strangers_are_no_jobs(world: World) -> None:
    async with world.jobs() as jobs:
        publishing = world.queues()
        for key in (INDEX_PROGRESS, INDEX_SUCCEEDED, INDEX_FAILED):
            for body in (b"", b"{}", b'{"request_id": "a"}', b"\xff"):
                await publishing.publish(key, body, message_id="a")
        job = await jobs.add("x", mode="full", requested_by="시험")
        progress = {"request_id": job.job_id, "stage": "embed", "done": 1, "total": 2}
        await publishing.publish(INDEX_PROGRESS, json.dumps(progress).encode(), message_id="b")
        await until(lambda: job.told.state == "running")
        with pytest.raises(UnknownResource):
            jobs.get("a")


async def test_full_queue_and_broken_source_are_refused_and_leave_no_job(
    rabbit_settings: RabbitMQSettings,
) -> None:
    small: WorkQueue = replace(INDEXING, max_length=1)
    for queues in (LocalQueues([small]), Broker(rabbit_settings, [small])):
        jobs = IndexJobs(queues)
        async with jobs.open():
            with pytest.raises(InvalidRequest):
                await jobs.add("\udcff", mode="full", requested_by="시험")
            # RabbitMQ's bound is a soft one: of those that come at once it may take more.
            made = [jobs.add("x", mode="full", requested_by="시험") for _ in range(20)]
            answered = await asyncio.gather(*made[:10], return_exceptions=True)
            for one in made[10:]:
                answered += await asyncio.gather(one, return_exceptions=True)
            accepted = {job.job_id for job in answered if isinstance(job, IndexJob)}
            refused = [job for job in answered if isinstance(job, Overloaded)]
            assert accepted
            assert refused
            assert len(accepted) + len(refused) == 20
            assert jobs._jobs.keys() == accepted
        await queues.close()


async def test_broker_that_is_away_is_said_and_leaves_no_job(rabbit_settings: RabbitMQSettings) -> None:
    broker = Broker(by_way_of(rabbit_settings, free_port()), [INDEXING])
    jobs = IndexJobs(broker)
    async with jobs.open():
        with pytest.raises(StoreUnavailable, match="RabbitMQ"):
            await jobs.add("x", mode="full", requested_by="시험")
        assert jobs._jobs == {}
    await broker.close()
