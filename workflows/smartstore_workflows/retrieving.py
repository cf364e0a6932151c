"""Find the FAQs for a question: every FAQ of the snapshot is scored in memory, exactly (docs/adr/0003)."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from llama_index_instrumentation import get_dispatcher

from smartstore_indexing.embedding import QueryVectors
from smartstore_indexing.errors import IndexOutdated, ModelUnavailable
from smartstore_indexing.faq import FAQ, Catalog
from smartstore_indexing.korean import Morphemes
from smartstore_indexing.nodes import PARTS
from smartstore_indexing.reading import IndexReader, Snapshot
from smartstore_workflows.events import Evidence, Passage
from smartstore_workflows.lexical import Bm25, grams
from smartstore_workflows.ranking import RankingModel, features_of
from smartstore_workflows.words import expansions

log = structlog.get_logger(__name__)
dispatcher = get_dispatcher(__name__)
TERMS_K1, TERMS_B = 1.5, 0.75
GRAMS_K1, GRAMS_B = 1.5, 0.5
BIGRAMS = (2,)
GRAMS_OF_ANSWER = 250  # characters; 150 and 400 rank as well (hit@3 .81, hit@10 .92 on the development queries)
SYNONYM_WEIGHT = 0.7  # hit@3 .838 instead of .825 on the development queries, .831 with 0.5
LEAD_OVER = 10  # the evidence compares the best FAQ with the tenth


@dataclass(frozen=True, slots=True)
class Searchable:
    """A snapshot with its lexical indexes: morphemes of titles, morphemes and bigrams of titles with their answers."""

    snapshot: Snapshot
    titles: Bm25
    terms: Bm25
    grams: Bm25
    answers: np.ndarray  # (n,) int: equal for FAQs whose answers are equal

    @classmethod
    def of(cls, snapshot: Snapshot) -> "Searchable":
        """Build the lexical indexes of a snapshot; takes about 1 s for 2,717 FAQs."""
        texts = (f"{faq.title} {faq.answer[:GRAMS_OF_ANSWER]}" for faq in snapshot.catalog)
        return cls(
            snapshot,
            titles=Bm25(snapshot.parts["question"].terms, k1=TERMS_K1, b=TERMS_B),
            terms=Bm25(snapshot.parts["answer"].terms, k1=TERMS_K1, b=TERMS_B),
            grams=Bm25((grams(text, BIGRAMS) for text in texts), k1=GRAMS_K1, b=GRAMS_B),
            answers=_numbered(faq.answer for faq in snapshot.catalog),
        )


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What was found: passages best first, how well they fit, and the features (n, 3) of all FAQs that ranked them."""

    passages: list[Passage]
    evidence: Evidence
    features: np.ndarray
    catalog: Catalog
    answers: np.ndarray  # (n,) int: equal for FAQs whose answers are equal


class FaqRetriever:
    """Searches the index in use."""

    def __init__(
        self,
        *,
        reader: IndexReader,
        vectors: QueryVectors,
        local: QueryVectors,
        morphemes: Morphemes,
        ranking: RankingModel,
    ) -> None:
        """Borrow the parts; who made them closes them.

        `vectors` are searched with, `local` are the shipped encoder's, which say how well what is found fits: those
        judgements were fitted to its cosines (docs/adr/0016). They may be the same.
        """
        self._reader = reader
        self._vectors = vectors
        self._local = local
        self._morphemes = morphemes
        self._ranking = ranking
        self._searchable: Searchable | None = None

    async def catalog(self) -> Catalog:
        """Return all FAQs of the index in use; raises what IndexReader.snapshot raises."""
        return (await self._reader.snapshot()).catalog

    @dispatcher.span
    async def retrieve(self, text: str) -> Retrieved:
        """Return the FAQs for a question that stands alone, or is joined to what it leans on.

        Raises what IndexReader.snapshot raises.
        """
        searchable = await self.searchable()
        local, vector, terms = await asyncio.gather(
            self._local.of(text),
            self._vector(text, searchable.snapshot.manifest.dimensions),
            asyncio.to_thread(self._morphemes.terms, text),
        )
        return await asyncio.to_thread(self._score, searchable, text, vector, local, terms)

    async def search(self, text: str, *, limit: int, category: str | None = None) -> list[Passage]:
        """Return at most `limit` passages for a text, up to RANKED, best first; with `category` from that one alone.

        Their scores are probabilities among the FAQs that were looked at. Raises what IndexReader.snapshot raises.
        """
        found = await self.retrieve(text)
        if category is None:
            return found.passages[:limit]
        faqs = list(found.catalog)
        among = np.flatnonzero([faq.category == category for faq in faqs])
        if not len(among):
            return []
        places, shares = self._ranking.rank(found.features[among], found.answers[among])
        passages = zip(places[:limit], shares, strict=False)
        return [Passage(faq_id=faqs[among[place]].id, score=share) for place, share in passages]

    async def titled_with(self, terms: Sequence[str]) -> list[FAQ]:
        """Return the FAQs whose titles hold any of the terms, those with the earlier terms first."""
        searchable = await self.searchable()
        faqs = list(searchable.snapshot.catalog)
        scores = [searchable.titles.scores([term.lower()]) for term in terms]
        best = [int(of_term.argmax()) for of_term in scores if of_term.max(initial=0.0) > 0]
        return [faqs[place] for place in dict.fromkeys(best)]

    async def searchable(self) -> Searchable:
        """Return the snapshot in use with its lexical indexes; raises what IndexReader.snapshot raises."""
        snapshot = await self._reader.snapshot()
        if self._searchable is None or self._searchable.snapshot is not snapshot:
            self._searchable = await asyncio.to_thread(Searchable.of, snapshot)
        return self._searchable

    async def _vector(self, text: str, dimensions: int) -> np.ndarray | None:
        """Return the vector to search with; None where its model does not answer, and the local one has to do."""
        try:
            vector = await self._vectors.of(text)
        except ModelUnavailable as error:
            log.warning("searched without the embedding model", code=error.code, reason=error.message)
            return None
        if len(vector) != dimensions:
            raise IndexOutdated(
                f"색인의 벡터는 {dimensions:,}차원이고 임베딩 모델은 {len(vector):,}차원을 보냅니다. "
                "`smartstore index --full`로 모두 다시 임베딩해 주세요."
            )
        return vector

    def _score(
        self, searchable: Searchable, text: str, vector: np.ndarray | None, local: np.ndarray, terms: list[str]
    ) -> Retrieved:
        snapshot = searchable.snapshot
        bigrams = grams(text, BIGRAMS)
        judged = [snapshot.parts[part].local @ local for part in PARTS]
        titles, answers = (
            judged if vector is None or vector is local else [snapshot.parts[part].vectors @ vector for part in PARTS]
        )
        by_terms, by_grams = searchable.terms.scores(terms), searchable.grams.scores(bigrams)
        by_synonyms = SYNONYM_WEIGHT * searchable.terms.scores(expansions(terms))
        features = features_of(titles=titles, answers=answers, terms=by_terms + by_synonyms, grams=by_grams)
        places, shares = self._ranking.rank(features, searchable.answers)
        ids = snapshot.catalog.ids
        passages = [Passage(faq_id=ids[place], score=share) for place, share in zip(places, shares, strict=True)]
        best = np.sort(np.maximum(*judged))[::-1]
        evidence = Evidence(
            best_cosine=float(best[0]),
            lead=float(best[0] - best[min(LEAD_OVER, len(best)) - 1]),
            terms_found=float(by_terms[places[0]]) / searchable.terms.ideal(terms),
            grams_found=float(by_grams[places[0]]) / searchable.grams.ideal(bigrams),
        )
        return Retrieved(passages, evidence, features, snapshot.catalog, searchable.answers)


def _numbered(texts: Iterable[str]) -> np.ndarray:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(text, len(numbers)) for text in texts])
