"""Disturbances: what is hidden is hidden, draws are nested and repeat, the oracle still knows the way."""

import numpy as np
import pytest

from anyorder_jax.acting.policy import Advised, one_action
from anyorder_jax.asking.questions import ask
from anyorder_jax.data import units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments import disturbances, registry
from anyorder_jax.environments.disturbances import STRENGTHS, Disturbed, Lens, disturb, paraphrase
from anyorder_jax.environments.play import play_episode
from anyorder_jax.evaluation import robustness, rollout
from anyorder_jax.evaluation.questions import Windows
from anyorder_jax.types import OCCLUDED, Field, Kind

LEVEL = "BabyAI-GoToLocalS5N2-v0"
SEED = 9_000_000
WITH_STRENGTH = [(name, value) for name, values in STRENGTHS.items() for value in (0.0, values[-1])]


@pytest.fixture(scope="module")
def trajectory():
    environment = registry.make_environment(LEVEL)
    return max((play_episode(environment, SEED + i) for i in range(6)), key=lambda t: len(t.units))


def words(unit, profile="joint"):
    return [slot.word for slot in registry.make_codec(LEVEL, profile).slots(unit)]


def seen(trajectory, name, strength, kind=Kind.OBSERVATION):
    return [u for u in disturb(trajectory, name, strength, 0).units if u.kind == kind]


@pytest.mark.parametrize(("name", "strength"), WITH_STRENGTH)
def test_every_disturbance_gives_units_that_tokenise(trajectory, name, strength):
    disturbed = disturb(trajectory, name, strength, 0)
    for profile in ("joint", "attributes"):
        codec = registry.make_codec(LEVEL, profile)
        example = units.tokenise(disturbed, codec, Vocabulary.builtin(codec))
        assert example.kind_U.tolist() == [unit.kind for unit in trajectory.units]
    if strength == 0 or name == "sticky":
        assert disturbed == trajectory
    else:
        assert disturbed != trajectory


def test_occlusion_is_nested_and_becomes_mask_tokens(trajectory):
    shares = []
    before: list[set[int]] = [set() for _ in trajectory.units]
    for strength in (0.2, 0.4, 0.6):
        hidden = [set(u.data[OCCLUDED]) for u in seen(trajectory, "occlusion", strength)]
        assert all(more >= less for more, less in zip(hidden, before, strict=False))
        shares.append(np.mean([len(cells) / 50 for cells in hidden]))
        before = hidden
    assert np.allclose(shares, (0.2, 0.4, 0.6), atol=0.12)
    codec = registry.make_codec(LEVEL, "attributes")
    vocabulary = Vocabulary.builtin(codec)
    example = units.tokenise(disturb(trajectory, "occlusion", 0.6, 0), codec, vocabulary)
    is_first_view_L = example.slots_GL[0] == 1
    masked = (example.tokens_L[is_first_view_L] == vocabulary.mask_id).sum()
    cells = set(before[0])
    assert masked == 3 * len(cells - {0}) + len(cells & {0})


def test_noise_changes_one_attribute_of_a_cell(trajectory):
    num_changed = 0
    for true, noisy in zip(
        [u for u in trajectory.units if u.kind == Kind.OBSERVATION], seen(trajectory, "noise", 0.4), strict=True
    ):
        true_words, noisy_words = words(true, "attributes")[1:], words(noisy, "attributes")[1:]
        differing = (np.array(true_words) != np.array(noisy_words)).reshape(-1, 3).sum(1)
        assert differing.max() <= 1
        num_changed += differing.sum()
    assert num_changed > 0


def test_a_small_view_keeps_what_is_near(trajectory):
    for true, small in zip(
        [u for u in trajectory.units if u.kind == Kind.OBSERVATION], seen(trajectory, "view", 2), strict=True
    ):
        grid = np.array(words(small)[1:]).reshape(7, 7)
        assert (grid[4:, 2:5] == np.array(words(true)[1:]).reshape(7, 7)[4:, 2:5]).all()
        grid[4:, 2:5] = "unseen"
        assert (grid == "unseen").all()


def test_repeated_and_dropped_observations(trajectory):
    repeated = seen(trajectory, "repeated", 1.0)
    assert all(u.data == repeated[0].data for u in repeated) and [u.step for u in repeated] == list(
        range(len(repeated))
    )
    assert all(len(u.data[OCCLUDED]) == 50 for u in seen(trajectory, "dropped", 1.0))


def test_paraphrases_are_made_of_known_words():
    known = set(registry.make_codec(LEVEL, "joint").lexicon()[Field.TEXT])
    goals = ["go to the red ball", "put a key next to the purple box, then open the door on your left"]
    for goal in goals:
        said = [paraphrase(goal, level) for level in range(4)]
        assert said[0] == goal and len(set(said)) == 4
        assert all(set(text.replace(",", " ,").split()) <= known for text in said)
    assert paraphrase(goals[0], 3) == "you go to a ball red"


def test_an_unknown_disturbance_is_refused():
    with pytest.raises(ValueError, match="expected one of occlusion"):
        Lens(LEVEL, "fog", 0.5, 0, 1)


def play(name, strength, policy, num=6):
    def make():
        return Disturbed(registry.make_environment(LEVEL), name, strength, 0)

    return rollout.play_all(make, range(SEED, SEED + num), policy)


@pytest.mark.parametrize("name", ["dropped", "sticky"])
def test_the_expert_solves_what_it_need_not_see(name):
    outcomes, _ = play(name, 0.3, Advised())
    assert outcomes.is_success_E.all()


def test_sticky_actions_repeat_what_was_done():
    class Turner:
        """left, right, left, ..."""

        def act(self, episodes):
            return [one_action(e, "left" if e.num_steps % 2 == 0 else "right") for e in episodes]

    _, straight = play("sticky", 0.0, Turner())
    _, stuck = play("sticky", 1.0, Turner())
    directions = [{u.data["direction"] for u in e.units if u.kind == Kind.OBSERVATION} for e in (straight[0], stuck[0])]
    assert len(directions[0]) == 2 and len(directions[1]) == 4  # to and fro, and round and round


def test_disturbed_windows_ask_for_the_true_answer(trajectory):
    codec = registry.make_codec(LEVEL, "joint")
    vocabulary = Vocabulary.builtin(codec)
    clean = [units.tokenise(trajectory, codec, vocabulary)]
    settings = {"num_steps": 3, "limit": 9, "seed": 0}
    for name in ("noise", "occlusion", "paraphrase", "dropped"):
        noisy = [units.tokenise(disturb(trajectory, name, STRENGTHS[name][-1], 0), codec, vocabulary)]
        for question in robustness.ASKED:
            truth = ask(question, clean, Windows(3), limit=9, seed=0)
            asks = robustness.disturbed_asks(question, clean, noisy, **settings)
            for one, true in zip(asks, truth, strict=True):
                np.testing.assert_array_equal(
                    one.example.tokens_L[one.hidden.is_target_L], true.example.tokens_L[true.hidden.is_target_L]
                )
            assert any(len(a.example) != len(t.example) or (a.example.tokens_L != t.example.tokens_L).any()
                       for a, t in zip(asks, truth, strict=True))  # fmt: skip
    assert set(STRENGTHS) > disturbances.ON_ACTIONS
