"""Sequence NLL and calibration: known predictors have known bounds, chains and diagrams."""

import numpy as np
import pytest

from anyorder_jax.acting.policy import Advised
from anyorder_jax.asking.calibration import reliability
from anyorder_jax.asking.questions import ask
from anyorder_jax.asking.targets import Prediction
from anyorder_jax.evaluation import questions, rollout, sequence_nll
from anyorder_jax.evaluation.baselines import SlotMarginals
from anyorder_jax.evaluation.measures import measure
from anyorder_jax.evaluation.targets import collect_targets
from anyorder_jax.types import Field, Kind
from test_evaluation import FORWARD, SEEDS, WINDOW, World, make_environment, tiny_model

SETTINGS = {"num_steps": WINDOW, "limit": 2, "seed": 0}


@pytest.fixture(scope="module")
def world():
    return World("joint", rollout.play_all(make_environment, SEEDS, Advised())[1])


def scored(example):
    return (example.slots_GL[0] >= 0) & (example.field_L != Field.FILLER)


@pytest.mark.parametrize("granularity", sequence_nll.GRANULARITIES)
def test_the_bound_of_independent_tokens_is_their_sum(world, granularity):
    """A predictor that ignores what it sees has one value, whatever the draws: the mean over windows of sum c_i."""
    weighted = sequence_nll.elbo_asks(world.examples, granularity=granularity, num_draws=8, **SETTINGS)
    windows = weighted.asks[::8]
    targets = collect_targets(weighted.asks)
    prediction = Prediction(np.full(len(targets.truth_T), 0.5), targets.truth_T)
    found = sequence_nll.estimates(weighted, targets, prediction, world.cell_words)
    assert found["nll_per_token"].value == pytest.approx(0.5)
    expected = np.mean([0.5 * scored(one.example).sum() for one in windows])
    tolerance = 1e-9 if granularity == "token" else 0.15  # units have unlike numbers of tokens: Monte Carlo
    assert found["nll_per_window"].value == pytest.approx(expected, rel=tolerance)


def test_the_bound_is_the_mean_over_all_orders(world):
    """A predictor that pays f(number of visible units) a unit: the mean over orders is f(0) + .. + f(S - 1), and N
    draws with S | N hit every count equally often."""
    example = world.examples[0]
    window = ask(questions.QUESTIONS[0], [example], questions.Windows(2), limit=99, seed=0)[-1].example
    num_units = len(window.kind_U)
    draws = 4 * num_units
    weighted = sequence_nll.elbo_asks(
        [example], granularity="unit", num_steps=2, num_draws=draws, limit=example.num_steps, seed=0
    )
    chosen = [i for i, one in enumerate(weighted.asks) if len(one.example.kind_U) == num_units]
    asks, weight_A = [weighted.asks[i] for i in chosen], weighted.weight_A[chosen]
    hidden_A = np.array([len(np.unique(a.example.slots_GL[0][a.hidden.is_target_L])) for a in asks])

    def cost(num_visible):
        return 1.0 / (1 + num_visible)

    total = (weight_A * hidden_A * cost(num_units - hidden_A)).sum() / (len(asks) / draws) / draws
    assert total == pytest.approx(sum(cost(k) for k in range(num_units)))


def test_draws_are_the_same_for_every_model_and_stratified(world):
    one, two = (sequence_nll.elbo_asks(world.examples, granularity="token", num_draws=16, **SETTINGS) for _ in range(2))
    for a, b in zip(one.asks, two.asks, strict=True):
        np.testing.assert_array_equal(a.hidden.is_hidden_L, b.hidden.is_hidden_L)
    rates = np.sort([a.hidden.rate for a in one.asks[:16]])
    assert (np.abs(rates - (np.arange(16) + 0.5) / 16) < 1.5 / 16).all()


def test_the_chain_asks_every_unit_once_from_its_past(world):
    weighted = sequence_nll.chain_asks(world.examples, **SETTINGS)
    assert len(weighted.asks) > len(weighted.episode_W)
    for one in weighted.asks:
        unit_L, hidden = one.example.slots_GL[0], one.hidden
        (asked,) = np.unique(unit_L[hidden.is_target_L])
        assert (hidden.is_hidden_L == (unit_L >= asked)).all()
        assert one.example.step_U[-1] == max(one.example.step_U[asked], one.example.step_U[1])
    goals = sum(one.example.kind_U[one.example.slots_GL[0][one.hidden.is_target_L][0]] == 0 for one in weighted.asks)
    assert goals == len(weighted.episode_W)


def test_chain_of_the_unigram_is_the_sum_of_its_tokens(world):
    marginals = SlotMarginals(world.examples)
    weighted = sequence_nll.chain_asks(world.examples, **SETTINGS)
    targets = collect_targets(weighted.asks)
    prediction = marginals.predict(targets)
    found = sequence_nll.estimates(weighted, targets, prediction, world.cell_words)
    assert found["nll_per_window"].value == pytest.approx(prediction.nll_T.sum() / len(weighted.episode_W))


def test_a_real_model_goes_through_both(world):
    _, _, model = tiny_model(world, questions.full_length(world.examples, WINDOW))
    marginals = SlotMarginals(world.examples)
    found = sequence_nll.evaluate(
        model, marginals, world.cell_words, world.examples[:3], num_steps=WINDOW, limit=1, seed=0, num_draws=4
    )
    assert set(found) == {"chain", "elbo@unit", "elbo@token"}
    log_vocabulary = np.log(world.vocabulary.size)
    for by_name in found.values():
        assert 0.5 * log_vocabulary < by_name["model"]["nll_per_token"].value < 2 * log_vocabulary
        assert by_name["most_frequent"]["nll_per_token"].value < by_name["model"]["nll_per_token"].value


# -- changed cells ---------------------------------------------------------------------------------


def test_changed_cells_are_those_that_copying_gets_wrong(world):
    """Over changed cells copying the observation before is always wrong, over the others always right."""
    asks = world.asks(FORWARD)
    targets = collect_targets(asks)
    copied = np.concatenate([previous_tokens(one) for one in asks])
    found = measure(targets, Prediction(None, copied), world.cell_words)
    assert found["changed_cell_accuracy"].value == 0.0 and found["changed_cell_accuracy"].count > 0
    share_changed = found["changed_cell_accuracy"].count / found["cell_accuracy"].count
    assert found["cell_accuracy"].value == pytest.approx(1 - share_changed)


def previous_tokens(one):
    unit_L = one.example.slots_GL[0]
    target = np.flatnonzero(one.hidden.is_target_L)
    before = np.flatnonzero(one.example.kind_U == Kind.OBSERVATION)[-2]
    return one.example.tokens_L[unit_L == before][: len(target)]


# -- calibration -----------------------------------------------------------------------------------


def test_a_calibrated_predictor_has_no_error_and_a_boaster_has(world):
    targets = collect_targets(world.asks(questions.QUESTIONS[2]))
    rng = np.random.default_rng(0)
    confidence = rng.choice([0.25, 0.55, 0.95], len(targets.truth_T))
    is_right = rng.random(len(confidence)) < confidence
    chosen = np.where(is_right, targets.truth_T, -1)
    nll = np.zeros(len(confidence))
    honest = reliability(targets, Prediction(nll, chosen, confidence), [Kind.OBSERVATION])["observation"]
    assert honest["ece"] < 0.03 and len(honest["bins"]) == 3
    assert sum(one["count"] for one in honest["bins"]) == honest["count"] == (targets.kind_T == Kind.OBSERVATION).sum()
    sure = np.ones(len(confidence))
    boaster = reliability(targets, Prediction(nll, chosen, sure), [Kind.OBSERVATION])["observation"]
    assert boaster["ece"] == pytest.approx(1 - is_right[targets.kind_T == Kind.OBSERVATION].mean())
    assert boaster["low"] <= boaster["ece"] <= boaster["high"]
    with pytest.raises(ValueError, match="no probability"):
        reliability(targets, Prediction(nll, chosen))
