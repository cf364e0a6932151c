"""Time how loading and searching grow with the FAQs: the file itself, then copies of its FAQs, up to 100,000.

    python tests/benchmarks/growth.py [FAQ FILE] [--rows N,N,…]

indexes the file (by default the sample) where answering.py does, once. The FAQs beyond it are copies: a title with a
number, the same morphemes and the number, the same vectors with a little noise. Every size is written to a Milvus Lite
file of its own by one process and read by another, so that neither pays for the other's memory; both folders are
temporary. 100,000 rows take many minutes, and their nodes alone 3.5 GB while they are written.

In the table: "write" is Collections.create and the alias; "MiB" is resident memory with the models loaded, before and
after the snapshot and its lexical indexes (Milvus Lite is in the process, and counts); the milliseconds are p50 / p95,
the retriever alone, its morphemes included, and for the first size two Milvus Lite searches at once instead, as ADR
0003 compares them.
"""

import argparse
import asyncio
import logging
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
from llama_index.core.schema import TextNode

from smartstore_indexing.embedding import DIMENSIONS, MODEL_NAME
from smartstore_indexing.faq import FAQ, FaqId, digest, faq_id
from smartstore_indexing.milvus import Manifest
from smartstore_indexing.nodes import FORMAT, PARTS, NodeParts, to_node
from smartstore_indexing.reading import Snapshot
from smartstore_indexing.settings import Settings, load_settings
from smartstore_workflows.app import Services, build

P = ParamSpec("P")
T = TypeVar("T")
GROWN = (10_000, 100_000)
RUNS, QUESTIONS, AT_ONCE, WARM_UP = 3, 60, 50, 5
NOISE = 0.2  # length of what is added to a vector of length 1: a copy's cosine with its original is about 0.98
MILVUS_NODES = 100  # of each search, as in ADR 0003
MILVUS_SECONDS = 300.0  # a slow call is to be measured here, not ended; the setting's default is 30
HEADINGS = (
    "rows",
    "write s",
    "load s",
    "lexical s",
    "MiB before",
    "MiB loaded",
    "search ms",
    "with embedding ms",
    f"{AT_ONCE} at once /s",
    "with embedding /s",
    "Milvus Lite ms",
)


class Latency(NamedTuple):
    """Milliseconds, each the median of the runs."""

    p50: float
    p95: float

    def __str__(self) -> str:
        return f"{self.p50:.1f} / {self.p95:.1f}"


class Measured(NamedTuple):
    """What one size's reading process found; rates are questions a second, `milvus` is None where it was not asked."""

    load_seconds: float
    lexical_seconds: float
    mib_before: float
    mib_loaded: float
    search: Latency
    with_embedding: Latency
    at_once: float
    at_once_with_embedding: float
    milvus: Latency | None


class Questions(NamedTuple):
    """Questions that are asked once each; a run has the same titles as every other, each time with a new number."""

    warm_up: list[str]
    with_embedding: list[list[str]]
    search: list[list[str]]
    at_once: list[str]
    at_once_with_embedding: list[str]

    @classmethod
    def about(cls, faqs: Sequence[FAQ]) -> "Questions":
        """Ask about FAQs spread over all of them."""
        titles = [faqs[place * len(faqs) // QUESTIONS].question for place in range(QUESTIONS)]
        rounds = [
            [f"{title} 알려 주세요 ({turn * QUESTIONS + place})" for place, title in enumerate(titles)]
            for turn in range(2 * RUNS + 3)
        ]
        warm_up, at_once, at_once_with_embedding, *rest = rounds
        return cls(warm_up[:WARM_UP], rest[:RUNS], rest[RUNS:], at_once[:AT_ONCE], at_once_with_embedding[:AT_ONCE])


def main(path: Path | None, sizes: Sequence[int] | None) -> None:
    """Index the file, then write and measure each size and print its row."""
    source = (path or load_settings().faq).resolve()
    progress(f"indexing {source.name}")
    original = in_own_process(indexed, source)
    faqs = list(original.catalog)
    questions = Questions.about(faqs)
    gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    print(
        f"{source.name}, FAQ {len(faqs):,}건, {os.cpu_count()} cores, {gib:.0f} GiB, {platform.machine()}, "
        f"Python {platform.python_version()}; n {QUESTIONS} questions, median of {RUNS} runs"
    )
    print_row(HEADINGS)
    print_row(["-" * (len(heading) - 1) + ":" for heading in HEADINGS])
    for place, rows in enumerate(sizes or (len(faqs), *GROWN)):
        with tempfile.TemporaryDirectory(prefix="smartstore-growth-") as name:
            progress(f"{rows:,} rows: writing")
            write_seconds = in_own_process(written, Path(name), original, rows)
            progress(f"{rows:,} rows: written in {write_seconds:.1f} s; reading")
            found = in_own_process(measured, Path(name), questions, beside_milvus=place == 0)
        print_row(
            [
                f"{rows:,}",
                f"{write_seconds:.1f}",
                f"{found.load_seconds:.1f}",
                f"{found.lexical_seconds:.1f}",
                f"{found.mib_before:,.0f}",
                f"{found.mib_loaded:,.0f}",
                str(found.search),
                str(found.with_embedding),
                f"{found.at_once:.1f}",
                f"{found.at_once_with_embedding:.1f}",
                str(found.milvus or "-"),
            ]
        )


def print_row(cells: Sequence[str]) -> None:
    """Print a row of the table as soon as there is one: the next size takes long."""
    padded = (cell.rjust(max(len(heading), 9)) for cell, heading in zip(cells, HEADINGS, strict=True))
    print(f"| {' | '.join(padded)} |", flush=True)


def progress(what: str) -> None:
    """Say on stderr what takes its time."""
    print(f"growth: {what}", file=sys.stderr, flush=True)


def in_own_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what the function returns in a fresh process, which ends with it."""
    with ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=logging.disable, initargs=(logging.CRITICAL,)
    ) as process:
        return process.submit(function, *args, **kwargs).result()


def settings_in(folder: Path) -> Settings:
    """Return the settings with Milvus Lite in this folder, even where the environment names a server."""
    milvus = {"uri": "", "timeout_seconds": MILVUS_SECONDS}
    return load_settings(data_dir=folder, model="extractive", milvus=milvus)


def indexed(source: Path) -> Snapshot:
    """Index the file itself, where answering.py does, and return all of it."""

    async def read() -> Snapshot:
        folder = Path(tempfile.gettempdir()) / f"smartstore-bench-{digest(str(source))}"
        async with build(settings_in(folder)) as services:
            await services.builder.build(source)
            return await services.reader.snapshot()

    return asyncio.run(read())


def written(folder: Path, original: Snapshot, rows: int) -> float:
    """Write that many FAQs as the index in use and return the seconds it took."""

    async def write() -> float:
        nodes = list(grown(original, rows))
        now = datetime.now(UTC)
        manifest = Manifest(
            format=FORMAT,
            embedder=MODEL_NAME,
            dimensions=DIMENSIONS,
            version=digest(original.manifest.version, str(rows)),
            faqs=rows,
            source=original.manifest.source,
            built_at=now.isoformat(timespec="seconds"),
        )
        async with build(settings_in(folder)) as services:
            name = services.collections.name_for(now.strftime("%Y%m%d%H%M%S%f"))
            started = time.perf_counter()
            await services.collections.create(name, manifest, nodes)
            await services.collections.use(name)
            return time.perf_counter() - started

    return asyncio.run(write())


def grown(original: Snapshot, rows: int) -> Iterator[TextNode]:
    """Yield the nodes of the original's FAQs, then of copies of them, as many as there are to be rows."""
    random = np.random.default_rng(0)
    faqs = list(original.catalog)
    for row in range(rows):
        place, is_copy = row % len(faqs), row >= len(faqs)
        faq = copied(faqs[place], row) if is_copy else faqs[place]
        for part in PARTS:
            vector, terms = original.parts[part].vectors[place], original.parts[part].terms[place]
            if is_copy:
                vector = vector + random.normal(scale=NOISE / DIMENSIONS**0.5, size=DIMENSIONS)
                vector /= np.linalg.norm(vector)
                terms = [*terms, str(row)]
            yield to_node(replace(faq, row=row), part, NodeParts(vector.tolist(), " ".join(terms)))


def copied(faq: FAQ, number: int) -> FAQ:
    """Return another FAQ with the number in its title."""
    title = f"{faq.title} {number}"
    return replace(
        faq,
        id=FaqId(faq_id(title)),
        version=digest(faq.version, str(number)),
        title=title,
        question=f"{faq.question} {number}",
    )


def measured(folder: Path, questions: Questions, *, beside_milvus: bool) -> Measured:
    """Open the index in the folder as every reader does, load it and search it."""

    async def measure() -> Measured:
        async with build(settings_in(folder)) as services:
            retriever = services.retriever
            await asyncio.to_thread(services.morphemes.load)
            await services.vectors.of(questions.warm_up[0])
            mib_before = resident_mib()
            started = time.perf_counter()
            await services.reader.snapshot()
            loaded = time.perf_counter()
            await retriever.searchable()
            built = time.perf_counter()
            mib_loaded = resident_mib()
            for question in questions.warm_up:
                await retriever.retrieve(question)
            with_embedding = await latency(retriever.retrieve, questions.with_embedding)
            for question in chain(*questions.search, questions.at_once):
                await services.vectors.of(question)  # kept: the retriever then embeds none of them
            return Measured(
                load_seconds=loaded - started,
                lexical_seconds=built - loaded,
                mib_before=mib_before,
                mib_loaded=mib_loaded,
                search=await latency(retriever.retrieve, questions.search),
                with_embedding=with_embedding,
                at_once=await rate(retriever.retrieve, questions.at_once),
                at_once_with_embedding=await rate(retriever.retrieve, questions.at_once_with_embedding),
                milvus=await of_milvus(services, questions) if beside_milvus else None,
            )

    return asyncio.run(measure())


async def of_milvus(services: Services, questions: Questions) -> Latency:
    """Search Milvus Lite for the same questions, dense and BM25 at once; their vectors are known here too."""
    name = (await services.reader.snapshot()).collection

    async def search(question: str) -> None:
        vector = await services.vectors.of(question)
        terms = await asyncio.to_thread(services.morphemes.terms, question)
        await asyncio.gather(
            services.collections.nearest(name, vector, limit=MILVUS_NODES),
            services.collections.matching(name, " ".join(terms), limit=MILVUS_NODES),
        )

    for question in questions.warm_up:
        await search(question)
    return await latency(search, questions.search)


async def latency(ask: Callable[[str], Awaitable[object]], runs: Sequence[Sequence[str]]) -> Latency:
    """Ask one question after the other, run by run."""
    found = []
    for questions in runs:
        seconds = []
        for question in questions:
            started = time.perf_counter()
            await ask(question)
            seconds.append(time.perf_counter() - started)
        found.append((median(seconds) * 1000, quantiles(seconds, n=20)[-1] * 1000))
    return Latency(median(p50 for p50, _ in found), median(p95 for _, p95 in found))


async def rate(ask: Callable[[str], Awaitable[object]], questions: Sequence[str]) -> float:
    """Ask all questions at once and return how many were answered in a second."""
    started = time.perf_counter()
    await asyncio.gather(*map(ask, questions))
    return len(questions) / (time.perf_counter() - started)


def resident_mib() -> float:
    """Return the resident memory of this process, nan where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return float("nan")
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def numbers(text: str) -> list[int]:
    """Return the sizes of --rows; each must be positive."""
    found = [int(number) for number in text.split(",")]
    if min(found) < 1:
        raise ValueError(text)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("faq", nargs="?", type=Path, metavar="FAQ FILE")
    parser.add_argument("--rows", type=numbers, metavar="N,N,…", help="by default the file's own, 10,000 and 100,000")
    given = parser.parse_args()
    main(given.faq, given.rows)
