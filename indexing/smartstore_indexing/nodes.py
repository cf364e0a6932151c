"""An FAQ as the two LlamaIndex nodes that are searched, and back."""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from llama_index.core.schema import NodeRelationship, RelatedNodeInfo, TextNode

from smartstore_indexing.cleaning import split_tags
from smartstore_indexing.faq import FAQ, FaqId

Part = Literal["question", "answer"]
PARTS: tuple[Part, ...] = ("question", "answer")
FORMAT = 2  # raise it when what a node holds or how its text is made changes: older indexes are then rebuilt
EMBEDDED_CHARACTERS = 80  # of an answer, after its question; the encoder was trained on just this text
SEARCHED_CHARACTERS = (
    400  # of an answer for BM25: as good as all of it (hit@3 .44 either way), a quarter of Kiwi's time
)


class NodeParts(NamedTuple):
    """What is computed for one node: its vector (unit length) and its morphemes, joined by blanks.

    Where another model than the shipped one searches, `local` is the shipped one's vector, `packed`.
    """

    vector: list[float]
    morphs: str
    local: str = ""


def embedded_text(faq: FAQ, part: Part) -> str:
    """Return the text whose vector the node holds."""
    if part == "question":
        return faq.title
    return f"{faq.question} {' '.join(faq.answer.split())[:EMBEDDED_CHARACTERS]}"


def searched_text(faq: FAQ, part: Part) -> str:
    """Return the text whose morphemes BM25 searches."""
    return faq.title if part == "question" else f"{faq.title} {faq.answer[:SEARCHED_CHARACTERS]}"


def node_id(faq_id: FaqId, part: Part) -> str:
    """Return the primary key of an FAQ's node."""
    return f"{faq_id}-{part}"


def parse_node_id(node_id: str) -> tuple[FaqId, Part]:
    """Return the FAQ's id and the part that a primary key names."""
    faq_id, _, part = node_id.partition("-")
    return FaqId(faq_id), "question" if part == "question" else "answer"


def to_node(faq: FAQ, part: Part, parts: NodeParts) -> TextNode:
    """Return the node of one part of an FAQ: `text` is the title or the whole answer, the rest is metadata."""
    metadata: dict[str, Any] = {"faq_id": faq.id, "part": part, "morphs": parts.morphs}
    if parts.local:
        metadata["local"] = parts.local
    if part == "answer":
        metadata |= {
            "title": faq.title,
            "version": faq.version,
            "row": faq.row,
            "categories": list(faq.categories),
            "related": list(faq.related),
        }
    return TextNode(
        id_=node_id(faq.id, part),
        text=faq.title if part == "question" else faq.answer,
        embedding=parts.vector,
        metadata=metadata,
        excluded_embed_metadata_keys=list(metadata),
        excluded_llm_metadata_keys=list(metadata),
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=faq.id)},
    )


def packed(vector: Sequence[float]) -> str:
    """Return a vector as text."""
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()


def unpacked(text: str) -> np.ndarray:
    """Return a packed vector, (n,) float32."""
    return np.frombuffer(base64.b64decode(text), dtype="<f4")


FAQ_FIELDS = ("faq_id", "title", "version", "row", "categories", "related", "text")


def to_faq(row: Mapping[str, Any]) -> FAQ:
    """Return the FAQ that an answer node's row holds (its FAQ_FIELDS)."""
    return FAQ(
        id=FaqId(row["faq_id"]),
        version=row["version"],
        row=row["row"],
        categories=tuple(row["categories"]),
        title=row["title"],
        question=split_tags(row["title"])[1],
        answer=row["text"],
        related=tuple(row["related"]),
    )
