"""What is trained on: excluded goals are gone, watched episodes show no action and ask none."""

import numpy as np
import pytest

from anyorder_jax.config import DataConfig, MaskingConfig
from anyorder_jax.data import units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments import registry
from anyorder_jax.environments.play import play_episode
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.task import Task, without_actions
from anyorder_jax.types import Kind

LEVEL = "BabyAI-GoToObjS4-v0"


class Shelf(Task):
    """A task whose episodes are in memory."""

    episodes: tuple = ()

    def trajectories(self, split, limit=0):
        return list(self.episodes[: limit or None])


@pytest.fixture(scope="module")
def task():
    environment = registry.make_environment(LEVEL)
    codec = registry.make_codec(LEVEL, "joint")
    shelf = Shelf(None, LEVEL, codec, Vocabulary.builtin(codec), {})
    shelf.episodes = tuple(play_episode(environment, seed) for seed in range(40))
    environment.close()
    return shelf


def goals(trajectories):
    return {t.units[0].text for t in trajectories}


def test_excluded_goals_are_left_out_and_no_others(task):
    everything = goals(task.training(DataConfig(num_episodes=0)))
    phrase = sorted(everything)[0].removeprefix("go to ").split(" ", 1)[1]
    kept = goals(task.training(DataConfig(num_episodes=0, exclude_goals=phrase)))
    assert kept == {goal for goal in everything if phrase not in goal} != everything
    with pytest.raises(ValueError, match="leaves no training episode"):
        task.training(DataConfig(num_episodes=0, exclude_goals="go"))


def test_a_watched_episode_shows_and_asks_no_action(task):
    watched = units.tokenise(without_actions(task.episodes[0]), task.codec, task.vocabulary)
    whole = units.tokenise(task.episodes[0], task.codec, task.vocabulary)
    is_action_L = np.append(watched.kind_U == Kind.ACTION, False)[watched.slots_GL[0]]
    assert (watched.tokens_L[is_action_L] == task.vocabulary.mask_id).all() and is_action_L.any()
    np.testing.assert_array_equal(watched.tokens_L[~is_action_L], whole.tokens_L[~is_action_L])
    for order in ("any_order", "causal", "inverse", "suffix", "prefix"):
        sampler = AnyOrderMaskSampler(MaskingConfig(order=order, causal_step="any"))
        hidden = sampler(np.random.default_rng(0), watched)
        assert hidden.is_target_L.any() and not hidden.is_target_L[is_action_L].any()


def test_the_share_is_kept_and_nested(task):
    def watched(share):
        found = task.training(DataConfig(num_episodes=0, action_free_share=share))
        return {t.id for t in found if not any(u.is_expert for u in t.units if u.kind == Kind.ACTION)}

    assert not watched(0.0) and len(watched(1.0)) == 40
    assert watched(0.3) < watched(0.7) and 20 <= len(watched(0.7)) <= 35
