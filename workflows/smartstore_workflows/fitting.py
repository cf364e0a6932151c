"""Fit the weights of the ranking and of the scope judgement; needs the development packages (scikit-learn).

    python -m smartstore_workflows.fitting ranking
    python -m smartstore_workflows.fitting scope QUERIES.jsonl UNANSWERABLE.jsonl

`ranking` fits to the project's own training_queries.jsonl over the sample FAQ, which must be the index in use, prints
cross-validated figures and writes ranking.json. `scope` fits to the project's own scope_lines.jsonl over the index in
use, places the thresholds by labelled files over that index, and writes scope.json.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from smartstore_indexing.settings import load_settings
from smartstore_workflows.app import Services, build
from smartstore_workflows.evaluation import Line, read_set
from smartstore_workflows.ranking import FEATURES
from smartstore_workflows.scope import evidence_features

Array = np.ndarray
HERE = Path(str(resources.files("smartstore_workflows")))
FOLDS = 5
STEPS, STEP_SIZE, PENALTY = 300, 0.1, 0.02
KEPT_QUERIES = 0.99  # the share of labelled questions that the scope threshold lets through
FOUND_QUERIES = 0.99  # and of those, the share that the found threshold answers


@dataclass(frozen=True, slots=True)
class RankedQuery:
    """The features (n, 4) of all FAQs for one labelled query, which of them are gold (n,), and its first gold row."""

    features: Array
    gold: Array
    row: int


def fit_ranking(queries: Sequence[RankedQuery]) -> Array:
    """Return the weights (4,) of greatest softmax likelihood of the gold FAQs (ListNet, Cao et al. 2007)."""
    weights = np.zeros(len(FEATURES))
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, STEPS + 1):
        gradient = PENALTY * weights
        for query in queries:
            scores = query.features @ weights
            odds = np.exp(scores - scores.max())
            probability = odds / odds.sum()
            target = probability * query.gold
            gradient = gradient + query.features.T @ (probability - target / target.sum()) / len(queries)
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2  # Adam, Kingma & Ba 2015
        weights = weights - STEP_SIZE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return weights


def ranks(queries: Sequence[RankedQuery], weights: Array) -> list[int]:
    """Return the rank of each query's best gold FAQ, from 1."""
    found = []
    for query in queries:
        order = np.argsort(-(query.features @ weights), kind="stable")
        found.append(int(np.nonzero(query.gold[order])[0][0]) + 1)
    return found


def cross_validated_ranks(queries: Sequence[RankedQuery]) -> list[int]:
    """Return the ranks when each fold is scored by weights fitted on the others; folds are grouped by gold row."""
    found: list[int] = []
    for fold in range(FOLDS):
        weights = fit_ranking([query for query in queries if query.row % FOLDS != fold])
        found += ranks([query for query in queries if query.row % FOLDS == fold], weights)
    return found


def hits(found: Sequence[int]) -> str:
    """Return hit@1, hit@3, hit@10 and MRR as a line."""
    shares = [float(np.mean([rank <= k for rank in found])) for k in (1, 3, 10)]
    mrr = float(np.mean([1 / rank for rank in found]))
    return "hit@1 {:.3f} hit@3 {:.3f} hit@10 {:.3f} MRR {:.3f}".format(*shares, mrr)


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


def log_odds(model: dict[str, Any], features: Array) -> Array:
    """Return the log odds (n,) that a stored model gives features (n, k)."""
    return np.asarray(features @ np.array(model["weights"]) + model["bias"])


def probability(odds: Array) -> Array:
    """Return log odds as probabilities."""
    return np.asarray(1 / (1 + np.exp(-odds)))


async def ranked_queries(services: Services, lines: Sequence[Line]) -> list[RankedQuery]:
    """Return labelled queries with the features of all FAQs of the index in use."""
    rows = [faq.row for faq in (await services.reader.snapshot()).catalog]
    found = []
    for line in lines:
        features = (await services.retriever.retrieve(line.query)).features.astype(float)
        found.append(RankedQuery(features, np.isin(rows, line.gold), line.gold[0]))
    return found


async def collect(services: Services, texts: Sequence[str]) -> tuple[Array, Array]:
    """Return the vectors (n, 384) and the evidence (n, 5) of questions."""
    vectors = np.array([await services.vectors.of(text) for text in texts])
    evidence = [evidence_features((await services.retriever.retrieve(text)).evidence) for text in texts]
    return vectors, np.array(evidence)


async def fit_ranking_file() -> None:
    """Fit the ranking and write ranking.json."""
    async with build(load_settings()) as services:
        queries = await ranked_queries(services, read_set(HERE / "training_queries.jsonl").lines)
    weights = fit_ranking(queries)
    sys.stdout.write(f"ranking, n {len(queries)}: in sample {hits(ranks(queries, weights))}\n")
    sys.stdout.write(f"  cross-validated {hits(cross_validated_ranks(queries))}\n")
    stored = {name: round(float(weight), 3) for name, weight in zip(FEATURES, weights, strict=True)}
    (HERE / "ranking.json").write_text(json.dumps({"weights": stored}, indent=1) + "\n", "utf-8")


async def fit_scope_file(queries: Path, unanswerable: Path) -> None:
    """Fit the scope judgement and write scope.json."""
    lines = [json.loads(text) for text in (HERE / "scope_lines.jsonl").read_text("utf-8").splitlines()]
    inside = np.array([line["label"] == "in" for line in lines])
    async with build(load_settings()) as services:
        embedder = (await services.reader.snapshot()).manifest.embedder
        vectors, evidence = await collect(services, [line["text"] for line in lines])
        asked = await collect(services, [line.query for line in read_set(queries).lines])
        unanswered = await collect(services, [line.query for line in read_set(unanswerable).lines])
    text, text_odds = logistic(vectors, inside, strength=0.003)
    scope, scope_odds = logistic(np.column_stack([evidence, text_odds]), inside, strength=1.0)
    query_odds = log_odds(scope, np.column_stack([asked[1], log_odds(text, asked[0])]))
    least_scope = float(np.quantile(probability(query_odds), 1 - KEPT_QUERIES))
    refused = probability(scope_odds) < least_scope
    sys.stdout.write(
        f"scope, n {len(lines)}, out of fold: out refused {refused[~inside].mean():.3f}, "
        f"in kept {1 - refused[inside].mean():.3f}, threshold {least_scope:.3f}\n"
    )
    answerable = np.r_[np.ones(len(asked[1])), np.zeros(len(unanswered[1]))].astype(bool)
    found, found_odds = logistic(np.r_[asked[1], unanswered[1]], answerable, strength=0.1)
    least_found = float(np.quantile(probability(found_odds[answerable]), 1 - FOUND_QUERIES))
    not_found = probability(found_odds) < least_found
    sys.stdout.write(
        f"found, n {len(answerable)}, out of fold: unanswerable not found {not_found[~answerable].mean():.3f}, "
        f"answerable not found {not_found[answerable].mean():.3f}, threshold {least_found:.3f}\n"
    )
    thresholds = {"least_scope": round(least_scope, 4), "least_found": round(least_found, 4)}
    model = {"embedder": embedder, **thresholds, "scope": scope, "found": found, "text": text}
    (HERE / "scope.json").write_text(json.dumps(model) + "\n", "utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["ranking"]:
        asyncio.run(fit_ranking_file())
    elif sys.argv[1:2] == ["scope"] and len(sys.argv) == 4:
        asyncio.run(fit_scope_file(Path(sys.argv[2]), Path(sys.argv[3])))
    else:
        sys.exit(__doc__)
