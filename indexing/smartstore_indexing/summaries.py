"""What an indexing run did."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class IndexSummary:
    """What an indexing run did; the first four count FAQs, `duplicates` rows whose question stands again below."""

    added: int
    changed: int
    removed: int
    unchanged: int
    duplicates: int
    embedded: int  # FAQs whose vectors were computed
    faqs: int
    version: str
    switched: bool  # False: nothing had changed, the index in use stays
    seconds: float
