"""Fit what ships as weights; needs the development packages (scikit-learn), and the FAQ meant as the index in use.

    python -m smartstore_workflows.fitting ranking QUERIES
    python -m smartstore_workflows.fitting scope QUERIES UNANSWERABLE LABELLED...
    python -m smartstore_workflows.fitting follow-ups

Files have the forms of `smartstore eval`. `ranking` fits to QUERIES, prints cross-validated figures and writes
ranking.json. `scope` trains its machines on the project's own scope_lines.jsonl and training_queries.jsonl and on
QUERIES and UNANSWERABLE, fits how they are weighed against what the search found, places the thresholds by the LABELLED
files, which it has not been trained on, and writes scope.npz and scope.json. `follow-ups` trains on the project's own
follow_up_lines.jsonl and writes follow_ups.json.
"""

import asyncio
import json
import random
import sys
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.svm import SVC

from smartstore_indexing.settings import load_settings
from smartstore_workflows.app import Services, build
from smartstore_workflows.classifying import KernelMachine
from smartstore_workflows.evaluation import Line, read_set
from smartstore_workflows.events import Evidence, ScopeJudged, Turn
from smartstore_workflows.follow_ups import LEAST, follow_up_features
from smartstore_workflows.learning import FOLDS, RankedQuestion, fit_ranking, found_threshold, scope_threshold
from smartstore_workflows.ranking import FEATURES
from smartstore_workflows.scope import found_features, scope_features
from smartstore_workflows.understanding import joined

Array = np.ndarray
HERE = Path(str(resources.files("smartstore_workflows")))
MACHINE_STRENGTH = 10.0  # SVC's C; 3 tells as well, 1 worse
STRENGTH, FOLLOW_UP_STRENGTH = 1.0, 0.01  # LogisticRegression's C
SWITCHES = 2_000  # made by program: a question, of sellers or of strangers, after one about something else
INSIDE = "in"


def machine(vectors: Array, labels: Array) -> KernelMachine:
    """Return a support vector machine trained on vectors (n, k) and their labels (n,), classes weighed alike."""
    mean, scale = vectors.mean(0), vectors.std(0) + 1e-9
    gamma = 1 / vectors.shape[1]
    trained = SVC(C=MACHINE_STRENGTH, gamma=gamma, class_weight="balanced").fit((vectors - mean) / scale, labels)
    return KernelMachine(
        trained.support_vectors_, trained.dual_coef_[0], float(trained.intercept_[0]), mean, scale, gamma
    )


def margins(trained: KernelMachine, vectors: Array) -> Array:
    """Return the margins (n,) of vectors (n, k)."""
    return np.array([trained.margin(vector) for vector in vectors])


def unseen_margins(vectors: Array, labels: Array) -> Array:
    """Return each vector's margin by a machine that was trained on other folds."""
    found = np.zeros(len(labels))
    for seen, unseen in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(vectors, labels):
        found[unseen] = margins(machine(vectors[seen], labels[seen]), vectors[unseen])
    return found


def logistic(features: Array, labels: Array, strength: float) -> tuple[dict[str, Any], Array]:
    """Return a balanced logistic model over raw features as it is stored, and its out-of-fold log odds (n,)."""
    mean, scale = features.mean(0), features.std(0) + 1e-9
    model = LogisticRegression(C=strength, class_weight="balanced", max_iter=5_000)
    standard = (features - mean) / scale
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    odds = cross_val_predict(model, standard, labels, cv=folds, method="decision_function")
    model.fit(standard, labels)
    weights = model.coef_[0] / scale
    bias = float(model.intercept_[0] - weights @ mean)
    return {"weights": [round(float(weight), 5) for weight in weights], "bias": round(bias, 5)}, odds


def probability(odds: Array) -> Array:
    """Return log odds as probabilities."""
    return np.asarray(1 / (1 + np.exp(-odds)))


def scope_lines() -> list[Line]:
    """Return the project's own lines in and out of scope."""
    stored = (json.loads(text) for text in (HERE / "scope_lines.jsonl").read_text("utf-8").splitlines())
    return [Line(id=str(place), query=line["text"], label=line["label"]) for place, line in enumerate(stored)]


async def vectors_of(services: Services, texts: Sequence[str]) -> Array:
    """Return the vectors (n, 384) of questions."""
    return np.array([await services.vectors.of(text) for text in texts])


async def evidence_of(services: Services, lines: Sequence[Line]) -> list[Evidence]:
    """Return what the search finds for each line."""
    return [(await services.retriever.retrieve(line.query)).evidence for line in lines]


async def fit_ranking_file(queries: Path) -> None:
    """Fit the ranking and write ranking.json."""
    async with build(load_settings()) as services:
        questions = []
        for line in read_set(queries).lines:
            found = await services.retriever.retrieve(line.query)
            answers = {faq.answer for faq in found.catalog if faq.row in line.gold}
            gold = np.array([faq.answer in answers for faq in found.catalog])
            if gold.any():
                questions.append(RankedQuestion(found.features.astype(float), gold, line.gold[0]).contenders())
    weights = fit_ranking(questions)
    _say(f"ranking, n {len(questions)}: in sample {_hits([_rank(question, weights) for question in questions])}")
    unseen = []
    for fold in range(FOLDS):
        seen = fit_ranking([question for question in questions if question.row % FOLDS != fold])
        unseen += [_rank(question, seen) for question in questions if question.row % FOLDS == fold]
    _say(f"  cross-validated {_hits(unseen)}")
    stored = {name: round(float(weight), 3) for name, weight in zip(FEATURES, weights, strict=True)}
    _write("ranking.json", {"weights": stored})


async def fit_scope_files(queries: Path, unanswerable: Path, labelled: Sequence[Path]) -> None:
    """Fit the scope judgement and write scope.npz and scope.json."""
    lines, sets = scope_lines(), [read_set(path) for path in labelled]
    asked, unanswered = read_set(queries).lines, read_set(unanswerable).lines
    more = [*read_set(HERE / "training_queries.jsonl").lines, *asked, *unanswered]
    judged = [line for found in sets for line in found.lines]
    async with build(load_settings()) as services:
        embedder = (await services.reader.snapshot()).manifest.embedder
        vectors = await vectors_of(services, [line.query for line in (*lines, *more)])
        evidence, told = await evidence_of(services, lines), await evidence_of(services, [*asked, *unanswered])
        judged_vectors = await vectors_of(services, [line.query for line in judged])
        judged_evidence = await evidence_of(services, judged)
    inside = np.array([line.label == INSIDE for line in lines] + [True] * len(more))
    own = inside[: len(lines)]
    text = machine(vectors, inside)
    unseen = unseen_margins(vectors, inside)[: len(lines)]
    telling = vectors[-len(asked) - len(unanswered) :]
    asks = np.arange(len(telling)) < len(asked)
    answerable, unseen_asks = machine(telling, asks), unseen_margins(telling, asks)
    weighed_found = [
        found_features(ScopeJudged(in_scope=0.0, answerable=at), found)
        for at, found in zip(unseen_asks, told, strict=True)
    ]
    texts = [
        ScopeJudged(in_scope=text.margin(vector), answerable=answerable.margin(vector)) for vector in judged_vectors
    ]

    weighed = [
        scope_features(ScopeJudged(in_scope=at, answerable=0.0), found)
        for at, found in zip(unseen, evidence, strict=True)
    ]
    scope, odds = logistic(np.array(weighed), own, STRENGTH)
    chances = probability(log_odds(scope, [scope_features(*both) for both in zip(texts, judged_evidence, strict=True)]))
    real = np.array([line.label != "out" for line in judged])  # unanswerable questions are in scope too
    strange = np.array([line.label == "out" for line in judged])
    least_scope = scope_threshold(chances[real], chances[strange])
    _say(f"scope, own lines out of fold, n {len(lines)}: {_kept(probability(odds), own, ~own, least_scope)}")
    _say(
        f"  labelled, n {(real | strange).sum()}: {_kept(chances, real, strange, least_scope)}, least {least_scope:.3f}"
    )

    found, _ = logistic(np.array(weighed_found), asks, STRENGTH)
    odds = log_odds(found, [found_features(*both) for both in zip(texts, judged_evidence, strict=True)])
    known = np.array([bool(line.gold) for line in judged])
    unknown = ~known & np.array([line.label is None for line in judged])
    least_found = found_threshold(probability(odds[known]))
    kept = _kept(probability(odds), known, unknown, least_found)
    _say(f"found, labelled, n {(known | unknown).sum()}: {kept}, least {least_found:.3f}")
    with (HERE / "scope.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **text.arrays("text"), **answerable.arrays("answerable"))
    thresholds = {"least_scope": round(least_scope, 4), "least_found": round(least_found, 4)}
    _write("scope.json", {"embedder": embedder, **thresholds, "scope": scope, "found": found})


async def fit_follow_ups_file() -> None:
    """Fit what tells follow-ups from new topics and write follow_ups.json."""
    chance = random.Random(0)  # noqa: S311
    lines = [json.loads(text) for text in (HERE / "follow_up_lines.jsonl").read_text("utf-8").splitlines()]
    alone = [line.query for line in (*read_set(HERE / "training_queries.jsonl").lines, *scope_lines())]
    before = [chance.choice(lines)["before"] for _ in range(SWITCHES)]
    pairs = [(line["before"], line["question"], line["leans"]) for line in lines]
    pairs += [(first, then, False) for first, then in zip(before, chance.sample(alone, SWITCHES), strict=True)]
    async with build(load_settings()) as services:
        features = []
        for first, then, _ in pairs:
            turn = Turn(question=first, standalone=first, answer="", kind="answered")
            vectors = await services.vectors.of(then), await services.vectors.of(joined(turn, then))
            features.append(follow_up_features(*vectors))
    leans = np.array([leaning for *_, leaning in pairs])
    model, odds = logistic(np.array(features), leans, FOLLOW_UP_STRENGTH)
    share = (odds >= LEAST)[leans].mean(), (odds < LEAST)[~leans].mean()
    _say(f"follow-ups, out of fold, n {len(leans)}: leaning told {share[0]:.3f}, standing alone told {share[1]:.3f}")
    _write("follow_ups.json", {"leans": model})


def log_odds(model: dict[str, Any], features: Any) -> Array:
    """Return the log odds (n,) that a stored model gives features (n, k)."""
    return np.asarray(np.array(features) @ np.array(model["weights"]) + model["bias"])


def _rank(question: RankedQuestion, weights: Array) -> int:
    scores = question.features @ weights
    return 1 + int((scores > scores[question.gold].max()).sum())


def _hits(found: Sequence[int]) -> str:
    shares = [float(np.mean([rank <= k for rank in found])) for k in (1, 3, 10)]
    mrr = float(np.mean([1 / rank for rank in found]))
    return "hit@1 {:.3f} hit@3 {:.3f} hit@10 {:.3f} MRR {:.3f}".format(*shares, mrr)


def _kept(chances: Array, right: Array, wrong: Array, least: float) -> str:
    return f"kept {(chances[right] >= least).mean():.3f}, turned down {(chances[wrong] < least).mean():.3f}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _write(name: str, value: object) -> None:
    (HERE / name).write_text(json.dumps(value, indent=1 if name == "ranking.json" else None) + "\n", "utf-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ranking", queries]:
            asyncio.run(fit_ranking_file(Path(queries)))
        case ["scope", queries, unanswerable, *labelled] if labelled:
            asyncio.run(fit_scope_files(Path(queries), Path(unanswerable), [Path(path) for path in labelled]))
        case ["follow-ups"]:
            asyncio.run(fit_follow_ups_file())
        case _:
            sys.exit(__doc__)
