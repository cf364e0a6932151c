"""Find the FAQs for a question: every FAQ of the snapshot is scored in memory, exactly (docs/adr/0003)."""

import asyncio
from dataclasses import dataclass

import numpy as np

from smartstore_indexing.embedding import QueryVectors
from smartstore_indexing.faq import Catalog
from smartstore_indexing.korean import Morphemes
from smartstore_indexing.reading import IndexReader, Snapshot
from smartstore_workflows.events import Evidence, Passage
from smartstore_workflows.lexical import Bm25, grams
from smartstore_workflows.ranking import RankingModel, features_of

TERMS_K1, TERMS_B = 1.5, 0.75
GRAMS_K1, GRAMS_B = 1.5, 0.5  # titles differ little in length
LEAD_OVER = 10  # the evidence compares the best FAQ with the tenth


@dataclass(frozen=True, slots=True)
class Searchable:
    """A snapshot with its lexical indexes."""

    snapshot: Snapshot
    question_terms: Bm25
    answer_terms: Bm25
    title_grams: Bm25

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Searchable":
        """Build the lexical indexes of a snapshot; takes about 0.3 s for 2,717 FAQs."""
        return cls(
            snapshot,
            Bm25(snapshot.parts["question"].terms, k1=TERMS_K1, b=TERMS_B),
            Bm25(snapshot.parts["answer"].terms, k1=TERMS_K1, b=TERMS_B),
            Bm25((grams(faq.title) for faq in snapshot.catalog), k1=GRAMS_K1, b=GRAMS_B),
        )


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What was found: passages best first, how well they fit, and the features (n, 6) of all FAQs that ranked them."""

    passages: list[Passage]
    evidence: Evidence
    features: np.ndarray
    catalog: Catalog


class FaqRetriever:
    """Searches the index in use."""

    def __init__(
        self, *, reader: IndexReader, vectors: QueryVectors, morphemes: Morphemes, ranking: RankingModel
    ) -> None:
        """Borrow the parts; who made them closes them."""
        self._reader = reader
        self._vectors = vectors
        self._morphemes = morphemes
        self._ranking = ranking
        self._searchable: Searchable | None = None

    async def catalog(self) -> Catalog:
        """Return all FAQs of the index in use; raises what IndexReader.snapshot raises."""
        return (await self._reader.snapshot()).catalog

    async def retrieve(self, question: str) -> Retrieved:
        """Return the FAQs for a question that stands alone; raises what IndexReader.snapshot raises."""
        searchable = await self.searchable()
        vector, terms = await asyncio.gather(
            self._vectors.of(question), asyncio.to_thread(self._morphemes.terms, question)
        )
        return await asyncio.to_thread(self._score, searchable, question, vector, terms)

    async def searchable(self) -> Searchable:
        """Return the snapshot in use with its lexical indexes; raises what IndexReader.snapshot raises."""
        snapshot = await self._reader.snapshot()
        if self._searchable is None or self._searchable.snapshot is not snapshot:
            self._searchable = await asyncio.to_thread(Searchable.of, snapshot)
        return self._searchable

    def _score(self, searchable: Searchable, question: str, vector: np.ndarray, terms: list[str]) -> Retrieved:
        snapshot = searchable.snapshot
        question_grams = grams(question)
        titles = snapshot.parts["question"].vectors @ vector
        answers = snapshot.parts["answer"].vectors @ vector
        by_grams = searchable.title_grams.scores(question_grams)
        features = features_of(
            titles=titles,
            answers=answers,
            question_terms=searchable.question_terms.scores(terms),
            answer_terms=searchable.answer_terms.scores(terms),
            title_grams=by_grams,
        )
        places, shares = self._ranking.rank(features)
        ids = snapshot.catalog.ids
        passages = [Passage(faq_id=ids[place], score=share) for place, share in zip(places, shares, strict=True)]
        best = np.sort(np.maximum(titles, answers))[::-1]
        ideal = searchable.title_grams.ideal(question_grams)
        evidence = Evidence(
            best_cosine=float(best[0]),
            title_cosine=float(titles.max()),
            lead=float(best[0] - best[min(LEAD_OVER, len(best)) - 1]),
            gram_coverage=float(by_grams.max()) / ideal,
            top_gram_coverage=float(by_grams[places[0]]) / ideal,
        )
        return Retrieved(passages, evidence, features, snapshot.catalog)
