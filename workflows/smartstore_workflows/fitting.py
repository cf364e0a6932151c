"""Fit the weights of the ranking and of the scope judgement; needs the development packages (scikit-learn).

    python -m smartstore_workflows.fitting QUERIES.jsonl UNANSWERABLE.jsonl

reads the index in use, prints cross-validated figures and writes ranking.json and scope.json beside this module. The
labelled lines only move these weights: nothing of their text is kept. What shows scope are the project's own
scope_lines.jsonl.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from smartstore_indexing.settings import load_settings
from smartstore_workflows.app import Services, build
from smartstore_workflows.evaluation import read_set
from smartstore_workflows.ranking import FEATURES
from smartstore_workflows.scope import evidence_features

Array = np.ndarray
FOLDS = 5
KEPT_QUERIES = 0.985  # the share of real questions that the scope threshold lets through
FOUND_QUERIES = 0.96  # and of those, the share that the found threshold answers


class RankedQuery:
    """The candidates of one labelled query: features (n, 6), which of them are gold (n,), and the fold's key."""

    def __init__(self, features: Array, gold: Array, key: int) -> None:
        """Hold them."""
        self.features, self.gold, self.key = features, gold, key


def fit_ranking(queries: Sequence[RankedQuery], *, penalty: float = 0.02, steps: int = 400) -> Array:
    """Return the weights (6,) of greatest softmax likelihood of the gold candidates (ListNet, Cao et al. 2007)."""
    usable = [query for query in queries if query.gold.any()]
    weights = np.zeros(usable[0].features.shape[1])
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, steps + 1):
        gradient = penalty * weights
        for query in usable:
            odds = np.exp((scores := query.features @ weights) - scores.max())
            probability = odds / odds.sum()
            target = probability * query.gold
            gradient = gradient + query.features.T @ (probability - target / target.sum()) / len(usable)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2  # Adam, Kingma & Ba 2015
        weights = weights - 0.1 * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return weights


def ranks(queries: Sequence[RankedQuery], weights: Array) -> list[int]:
    """Return the rank of each query's best gold candidate, from 1, 0 for none."""
    found = []
    for query in queries:
        order = np.argsort(-(query.features @ weights), kind="stable")
        places = np.nonzero(query.gold[order])[0]
        found.append(int(places[0]) + 1 if len(places) else 0)
    return found


def cross_validated_ranks(queries: Sequence[RankedQuery]) -> list[int]:
    """Return the ranks when each fold is scored by weights fitted on the others; folds are grouped by gold row."""
    found: list[int] = []
    for fold in range(FOLDS):
        weights = fit_ranking([query for query in queries if query.key % FOLDS != fold])
        found += ranks([query for query in queries if query.key % FOLDS == fold], weights)
    return found


def hits(found: Sequence[int]) -> str:
    """Return hit@1, hit@3, hit@10 and MRR as a line."""
    shares = [np.mean([0 < rank <= k for rank in found]) for k in (1, 3, 10)]
    mrr = np.mean([1 / rank if rank else 0 for rank in found])
    return " ".join(f"{figure:.3f}" for figure in (*shares, mrr))


def logistic(features: Array, labels: Array, strength: float) -> tuple[dict[str, Any], Array]:
    """Return a balanced logistic model over raw features as scope.json stores it, and its out-of-fold log odds."""
    mean, scale = features.mean(0), features.std(0) + 1e-9
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=5_000)
    standard = (features - mean) / scale
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    odds = cross_val_predict(model, standard, labels, cv=folds, method="decision_function")
    model.fit(standard, labels)
    weights = model.coef_[0] / scale
    bias = float(model.intercept_[0] - weights @ mean)
    return {"weights": [round(float(weight), 5) for weight in weights], "bias": round(bias, 5)}, odds


def probability(log_odds: Array) -> Array:
    """Return log odds as probabilities."""
    return np.asarray(1 / (1 + np.exp(-log_odds)))


async def collect(services: Services, texts: Sequence[str]) -> tuple[Array, Array]:
    """Return the vectors (n, 384) and the evidence (n, 5) of questions."""
    vectors = np.array([await services.vectors.of(text) for text in texts])
    evidence = [evidence_features((await services.retriever.retrieve(text)).evidence) for text in texts]
    return vectors, np.array(evidence)


async def fit(queries_path: Path, unanswerable_path: Path) -> None:
    """Fit everything and write the two files."""
    here = Path(str(resources.files("smartstore_workflows")))
    queries, unanswerable = read_set(queries_path).lines, read_set(unanswerable_path).lines
    lines = [json.loads(text) for text in (here / "scope_lines.jsonl").read_text("utf-8").splitlines()]
    async with build(load_settings()) as services:
        snapshot = await services.reader.snapshot()
        rows = [faq.row for faq in snapshot.catalog]
        ranked = []
        for line in queries:
            found = await services.retriever.retrieve(line.query)
            gold = np.isin(rows, line.gold)
            ranked.append(RankedQuery(found.features.astype(float), gold, line.gold[0]))
        asked = await collect(services, [line.query for line in queries])
        unanswered = await collect(services, [line.query for line in unanswerable])
        shown = await collect(services, [line["text"] for line in lines])
    weights = fit_ranking(ranked)
    sys.stdout.write(f"ranking, n {len(ranked)}: in sample {hits(ranks(ranked, weights))}\n")
    sys.stdout.write(f"  cross-validated {hits(cross_validated_ranks(ranked))}\n")
    stored = {name: round(float(weight), 4) for name, weight in zip(FEATURES, weights, strict=True)}
    (here / "ranking.json").write_text(json.dumps({"weights": stored}, indent=1) + "\n", "utf-8")

    inside = np.array([line["label"] == "in" for line in lines])
    text, text_odds = logistic(shown[0], inside, strength=0.003)
    scope, scope_odds = logistic(np.column_stack([shown[1], text_odds]), inside, strength=1.0)
    query_text = asked[0] @ np.array(text["weights"]) + text["bias"]
    query_odds = np.column_stack([asked[1], query_text]) @ np.array(scope["weights"]) + scope["bias"]
    least_scope = float(np.quantile(probability(query_odds), 1 - KEPT_QUERIES))
    refused = probability(scope_odds) < least_scope
    sys.stdout.write(
        f"scope, n {len(lines)}: out refused {refused[~inside].mean():.3f}, in kept {1 - refused[inside].mean():.3f}, "
        f"threshold {least_scope:.3f}\n"
    )
    answerable = np.r_[np.ones(len(asked[1])), np.zeros(len(unanswered[1]))].astype(bool)
    answered, found_odds = logistic(np.r_[asked[1], unanswered[1]], answerable, strength=0.1)
    least_found = float(np.quantile(probability(found_odds[answerable]), 1 - FOUND_QUERIES))
    not_found = probability(found_odds) < least_found
    sys.stdout.write(
        f"found, n {len(answerable)}: unanswerable not found {not_found[~answerable].mean():.3f}, "
        f"answerable not found {not_found[answerable].mean():.3f}, threshold {least_found:.3f}\n"
    )
    model = {
        "embedder": snapshot.manifest.embedder,
        "least_scope": round(least_scope, 4),
        "least_found": round(least_found, 4),
        "scope": scope,
        "found": answered,
        "text": text,
    }
    (here / "scope.json").write_text(json.dumps(model) + "\n", "utf-8")


if __name__ == "__main__":
    asyncio.run(fit(Path(sys.argv[1]), Path(sys.argv[2])))
