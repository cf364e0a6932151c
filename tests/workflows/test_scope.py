import json
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartstore_indexing.embedding import DIMENSIONS, MODEL_NAME
from smartstore_workflows.events import Evidence, Kind
from smartstore_workflows.scope import Logistic, ScopeModel, evidence_features

FIELDS = len(Evidence.model_fields)


def first_of(size: int, place: int = 0) -> Logistic:
    """Return a model whose log odds are one of its features."""
    weights = np.zeros(size, dtype=np.float32)
    weights[place] = 1
    return Logistic(weights, 0.0)


# In scope by the text's log odds alone, found by the first figure of the evidence alone; both thresholds at one half.
MODEL = ScopeModel(
    text=first_of(DIMENSIONS),
    scope=first_of(FIELDS + 1, FIELDS),
    found=first_of(FIELDS),
    least_scope=0.5,
    least_found=0.5,
)


def evidence(best_cosine: float) -> Evidence:
    return Evidence(**{**dict.fromkeys(Evidence.model_fields, 0.0), "best_cosine": best_cosine})


@pytest.mark.parametrize(
    ("text_odds", "found", "kind"),
    [(1, 1, "answered"), (1, -1, "not_found"), (-1, 1, "refused"), (-1, -1, "refused"), (0, 0, "answered")],
    ids=["in and found", "in, not found", "out, yet found", "out, not found", "both on the threshold"],
)
def test_scope_is_judged_before_what_was_found(text_odds: float, found: float, kind: Kind) -> None:
    assert MODEL.judge(text_odds, evidence(found)).kind == kind


@pytest.mark.parametrize(("least", "kind"), [(0.73, "answered"), (0.74, "refused")])
def test_scope_threshold_is_a_probability(least: float, kind: Kind) -> None:
    assert replace(MODEL, least_scope=least).judge(1.0, evidence(1)).kind == kind  # the odds e:1 are .731


@pytest.mark.parametrize(("least", "kind"), [(0.73, "answered"), (0.74, "not_found")])
def test_found_threshold_is_a_probability(least: float, kind: Kind) -> None:
    assert replace(MODEL, least_found=least).judge(1.0, evidence(1)).kind == kind


def test_text_odds_come_from_the_vector() -> None:
    vector = np.zeros(DIMENSIONS, dtype=np.float32)
    vector[0] = 0.25
    assert MODEL.text_odds(vector) == 0.25
    assert replace(MODEL, text=Logistic(MODEL.text.weights, -1.0)).text_odds(vector) == -0.75


def test_evidence_is_read_in_the_order_of_its_fields() -> None:
    numbered = Evidence(**{name: float(place) for place, name in enumerate(Evidence.model_fields)})
    assert evidence_features(numbered).tolist() == [float(place) for place in range(FIELDS)]


def test_judgement_carries_both_probabilities_whatever_the_kind() -> None:
    judgement = MODEL.judge(-1.0, evidence(1))
    assert judgement.kind == "refused"
    assert (judgement.in_scope, judgement.found) == pytest.approx((0.2689, 0.7311), abs=1e-4)


@settings(deadline=None)
@given(st.floats(-1e30, 1e30), st.builds(Evidence, **dict.fromkeys(Evidence.model_fields, st.floats(-1e30, 1e30))))
def test_every_finite_finding_has_a_kind_and_probabilities(text_odds: float, found: Evidence) -> None:
    for model in (MODEL, ScopeModel.shipped()):
        judgement = model.judge(text_odds, found)
        assert judgement.kind in ("answered", "refused", "not_found")
        assert 0 <= judgement.in_scope <= 1
        assert 0 <= judgement.found <= 1


def test_shipped_model_fits_the_embedder_and_the_evidence() -> None:
    stored = json.loads(resources.files("smartstore_workflows").joinpath("scope.json").read_text(encoding="utf-8"))
    assert stored["embedder"] == MODEL_NAME
    model = ScopeModel.shipped()
    assert model.text.weights.shape == (DIMENSIONS,)
    assert model.scope.weights.shape == (FIELDS + 1,)
    assert model.found.weights.shape == (FIELDS,)
    assert 0 < model.least_scope < 1
    assert 0 < model.least_found < 1
    for part in (model.text, model.scope, model.found):
        assert np.isfinite(part.weights).all()
        assert np.isfinite(part.bias)


def test_shipped_model_answers_what_is_surely_found_and_refuses_what_is_not() -> None:
    sure = Evidence(**{**dict.fromkeys(Evidence.model_fields, 1.0), "lead": 0.1})
    nothing = Evidence(**{**dict.fromkeys(Evidence.model_fields, 0.0), "best_cosine": 0.75, "title_cosine": 0.75})
    assert ScopeModel.shipped().judge(10.0, sure).kind == "answered"
    assert ScopeModel.shipped().judge(-10.0, nothing).kind == "refused"
