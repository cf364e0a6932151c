import json
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smartstore_indexing.embedding import DIMENSIONS, MODEL_NAME
from smartstore_workflows.classifying import KernelMachine, Logistic
from smartstore_workflows.events import Evidence, Kind, ScopeJudged
from smartstore_workflows.scope import ScopeModel, found_features, scope_features

NOTHING = ScopeJudged(in_scope=0.0, answerable=0.0)
# Positive near (1, 0, …), negative near (-1, 0, …).
MACHINE = KernelMachine(
    support=np.array([[1.0, 0.0], [-1.0, 0.0]], dtype=np.float32),
    weights=np.array([1.0, -1.0], dtype=np.float32),
    bias=0.0,
    mean=np.zeros(2, dtype=np.float32),
    scale=np.ones(2, dtype=np.float32),
    gamma=0.5,
)


def first_of(size: int) -> Logistic:
    """Return a model whose log odds are the first of its features."""
    return Logistic(np.eye(1, size, dtype=np.float32)[0], 0.0)


def evidence(**figures: float) -> Evidence:
    return Evidence(**{**dict.fromkeys(Evidence.model_fields, 0.0), **figures})


# In scope by the text's margin alone, found by the best cosine alone; both thresholds at one half.
MODEL = ScopeModel(
    text=MACHINE,
    answerable=MACHINE,
    scope=first_of(len(scope_features(NOTHING, evidence()))),
    found=first_of(len(found_features(NOTHING, evidence()))),
    least_scope=0.5,
    least_found=0.5,
)


def text(in_scope: float) -> ScopeJudged:
    return ScopeJudged(in_scope=in_scope, answerable=0.0)


@pytest.mark.parametrize(
    ("in_scope", "found", "kind"),
    [(1, 1, "answered"), (1, -1, "not_found"), (-1, 1, "refused"), (-1, -1, "refused"), (0, 0, "answered")],
    ids=["in and found", "in, not found", "out, yet found", "out, not found", "both on the threshold"],
)
def test_scope_is_judged_before_what_was_found(in_scope: float, found: float, kind: Kind) -> None:
    assert MODEL.judge(text(in_scope), evidence(best_cosine=found)).kind == kind


@pytest.mark.parametrize(("least", "kind"), [(0.73, "answered"), (0.74, "refused")])
def test_scope_threshold_is_a_probability(least: float, kind: Kind) -> None:
    assert replace(MODEL, least_scope=least).judge(text(1.0), evidence(best_cosine=1)).kind == kind  # e:1 are .731


@pytest.mark.parametrize(("least", "kind"), [(0.73, "answered"), (0.74, "not_found")])
def test_found_threshold_is_a_probability(least: float, kind: Kind) -> None:
    assert replace(MODEL, least_found=least).judge(text(1.0), evidence(best_cosine=1)).kind == kind


def test_judgement_carries_both_probabilities_whatever_the_kind() -> None:
    judgement = MODEL.judge(text(-1.0), evidence(best_cosine=1))
    assert judgement.kind == "refused"
    assert (judgement.in_scope, judgement.found) == pytest.approx((0.2689, 0.7311), abs=1e-4)


def test_machine_tells_sides_and_is_unsure_between() -> None:
    near, far, between = (np.array(point, dtype=np.float32) for point in ([1, 0], [-1, 0], [0, 3]))
    assert MACHINE.margin(near) == pytest.approx(1 - np.exp(-2))
    assert MACHINE.margin(far) == pytest.approx(np.exp(-2) - 1)
    assert MACHINE.margin(between) == pytest.approx(0)
    assert replace(MACHINE, bias=0.25).margin(between) == pytest.approx(0.25)


def test_machine_standardizes_what_it_is_given() -> None:
    moved = replace(MACHINE, mean=np.array([5.0, 1.0]), scale=np.array([2.0, 1.0]))
    assert moved.margin(np.array([7.0, 1.0])) == pytest.approx(MACHINE.margin(np.array([1.0, 0.0])))


def test_machine_is_read_as_it_was_written() -> None:
    read = KernelMachine.of(MACHINE.arrays("text"), "text")
    for point in np.random.default_rng(1).normal(size=(20, 2)):
        assert read.margin(point) == pytest.approx(MACHINE.margin(point), abs=1e-3)


@settings(deadline=None)
@given(
    st.floats(-1e30, 1e30),
    st.floats(-1e30, 1e30),
    st.builds(Evidence, **dict.fromkeys(Evidence.model_fields, st.floats(-1e30, 1e30))),
)
def test_every_finite_finding_has_a_kind_and_probabilities(in_scope: float, answerable: float, found: Evidence) -> None:
    judgement = MODEL.judge(ScopeJudged(in_scope=in_scope, answerable=answerable), found)
    assert judgement.kind in ("answered", "refused", "not_found")
    assert 0 <= judgement.in_scope <= 1
    assert 0 <= judgement.found <= 1


def test_shipped_model_fits_the_embedder_and_the_evidence() -> None:
    stored = json.loads(resources.files("smartstore_workflows").joinpath("scope.json").read_text(encoding="utf-8"))
    assert stored["embedder"] == MODEL_NAME
    model = ScopeModel.shipped()
    assert model.scope.weights.shape == scope_features(NOTHING, evidence()).shape
    assert model.found.weights.shape == found_features(NOTHING, evidence()).shape
    assert 0 < model.least_scope < 1
    assert 0 < model.least_found < 1
    for machine in (model.text, model.answerable):
        assert machine.support.shape == (len(machine.weights), DIMENSIONS)
        assert np.isfinite(machine.support).all()
        assert np.isfinite(machine.margin(np.zeros(DIMENSIONS)))


def test_shipped_model_answers_what_is_surely_found_and_refuses_what_is_not() -> None:
    sure = evidence(best_cosine=0.95, lead=0.3, terms_found=1.0, grams_found=1.0)
    assert ScopeModel.shipped().judge(ScopeJudged(in_scope=2.0, answerable=1.0), sure).kind == "answered"
    assert (
        ScopeModel.shipped().judge(ScopeJudged(in_scope=2.0, answerable=-1.0), evidence(best_cosine=0.5)).kind
        == "not_found"
    )
    assert (
        ScopeModel.shipped().judge(ScopeJudged(in_scope=-2.0, answerable=-1.0), evidence(best_cosine=0.4)).kind
        == "refused"
    )
