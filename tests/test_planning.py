"""Planning: plans fill the holes they say, act until they are used up, and see no more than they may."""

import numpy as np
import pytest

from anyorder_jax.acting.policy import Advised
from anyorder_jax.data import units
from anyorder_jax.evaluation import planning, rollout
from anyorder_jax.evaluation.policy import Framer
from anyorder_jax.types import Kind, Trajectory
from test_evaluation import WINDOW, World, begun, make_environment, words_of

SEEDS = range(9_000_000, 9_000_003)


@pytest.fixture(scope="module")
def world():
    return World("joint", rollout.play_all(make_environment, SEEDS, Advised())[1])


def framer(world):
    return Framer(world.codec, world.vocabulary, WINDOW, world.actions)


class Scripted:
    """A model that writes `word` into every hole and remembers what it was shown."""

    def __init__(self, world, word):
        self.world, self.id, self.shown = world, world.id_of(word), []

    def logits(self, rows, places):
        self.shown.append([row.copy() for row in rows])
        return [np.eye(self.world.vocabulary.size, dtype=np.float32)[np.full(len(own), self.id)] for own in places]

    def action_logits(self, rows, first_hidden):
        scores = np.zeros((len(rows), len(self.world.actions)), np.float32)
        scores[:, 1] = 1.0
        return scores


def planner(world, model, is_stepwise, num_actions=2):
    word_ids = {word: world.vocabulary.encode_slot(word) for word in world.actions}
    return planning.Planner(framer(world), model, word_ids, num_actions, is_stepwise, world.vocabulary.mask_id)


def test_a_plan_row_is_the_layout_of_training(world):
    """With its holes filled by what happened, the row is a window of the episode."""
    trajectory = max(world.trajectories, key=lambda t: len(t.units))
    seen = [u for u in trajectory.units if u.step < 1 or (u.kind == Kind.OBSERVATION and u.step == 1)]
    row, places = framer(world).plan_row("7", seen, 2)
    whole = units.tokenise(Trajectory("x", trajectory.units), world.codec, world.vocabulary)
    window = units.window(whole, 2, WINDOW)
    assert len(row) == len(window)
    is_hole = row == world.vocabulary.mask_id
    np.testing.assert_array_equal(row[~is_hole], window.tokens_L[~is_hole])
    hidden = np.unique(window.slots_GL[0][is_hole])
    assert window.kind_U[hidden].tolist() == [Kind.ACTION, Kind.OBSERVATION, Kind.ACTION]
    assert [window.tokens_L[p] for p in places] == [
        world.id_of(u.text) for u in trajectory.units if u.kind == Kind.ACTION and u.step in (1, 2)
    ]


def test_the_goal_state_stands_at_the_end(world):
    trajectory = world.trajectories[0]
    last = [u for u in trajectory.units if u.kind == Kind.OBSERVATION][-1]
    row, _ = framer(world).plan_row("1", trajectory.units[:2], 1, last)
    view = units.tokenise(Trajectory("x", (last,)), world.codec, world.vocabulary).tokens_L
    np.testing.assert_array_equal(row[-len(view) :], view)


@pytest.mark.parametrize(("is_stepwise", "passes"), [(False, 1), (True, 3)])
def test_a_plan_is_done_before_the_next_one(world, is_stepwise, passes):
    model = Scripted(world, "left")
    agent = planner(world, model, is_stepwise)
    with begun(SEEDS[:1]) as (episode,):
        for _ in range(4):
            (decision,) = agent.act([episode])
            assert words_of([decision]) == ["left"]
            episode.take(episode.decide(decision).result())
    assert len(model.shown) == 2 * passes  # two plans of two actions


def test_stepwise_sees_what_it_imagined(world):
    model = Scripted(world, "left")
    with begun(SEEDS[:1]) as episodes:
        planner(world, model, True).act(episodes)
    holes = [int((rows[0] == world.vocabulary.mask_id).sum()) for rows in model.shown]
    assert holes == [52, 51, 1]  # action, observation (50 words), action


def test_a_plan_that_says_no_action_falls_back(world):
    with begun(SEEDS[:1]) as episodes:
        assert words_of(planner(world, Scripted(world, "wall"), False).act(episodes)) == [world.actions[1]]
