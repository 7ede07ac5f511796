"""Branches: the world's own answers to other actions; recorded and drawn the same every time, asked and learned."""

import dataclasses
import json

import numpy as np
import pytest

import corridor
import shop_world
from anyorder_jax import collect, keys
from anyorder_jax.config import MaskingConfig, defaults, freeze
from anyorder_jax.data import branches, pipeline, sources, units
from anyorder_jax.data.overlap import Known
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import Branching
from anyorder_jax.environments.branching import Brancher
from anyorder_jax.environments.play import play_episode, play_text_episode
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.task import collection, directory_of, open_task
from anyorder_jax.types import Kind, Trajectory, Unit

pytest.importorskip("minigrid", reason="needs the extra `babyai`")

LEVEL = "BabyAI-UnlockPickup-v0"
SMALL = {"num_validation_episodes": 2, "num_test_episodes": 2, "num_workers": 1}


@pytest.fixture(autouse=True)
def worlds(monkeypatch):
    monkeypatch.setenv(registry.WORLDS, "")
    shop_world.register()


class Without:
    """A world that has not all of its verbs."""

    def __init__(self, world, *verbs):
        self._world, self._verbs = world, verbs

    def __getattr__(self, name):
        if name in self._verbs or name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._world, name)


def plain(trajectory):
    return dataclasses.replace(trajectory, units=tuple(dataclasses.replace(u, branches=()) for u in trajectory.units))


def with_branches(level, seed, num, wrap=lambda world: world, noise=0.0):
    """The episode, of a grid or a world of text, with its branches."""
    if registry.is_text(level):
        world = wrap(registry.make_session(level))
        return play_text_episode(world, str(seed), noise, Brancher(world, num, lambda: registry.make_session(level)))
    world = wrap(registry.make_environment(level))
    return play_episode(world, seed, noise, Brancher(world, num, lambda: registry.make_environment(level)))


# -- asked of the world -------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [LEVEL, "BabyAIText-UnlockPickup-v0"])
def test_a_copy_says_what_a_replay_says_and_moves_nothing(level):
    copied, replayed = (
        with_branches(level, 4, 3, noise=0.2),
        with_branches(level, 4, 3, lambda world: Without(world, "copy"), noise=0.2),
    )
    assert copied == replayed
    if registry.is_text(level):
        assert plain(copied) == play_text_episode(registry.make_session(level), "4", 0.2)
    else:
        assert plain(copied) == play_episode(registry.make_environment(level), 4, 0.2)
    actions = [unit for unit in copied.units if unit.kind == Kind.ACTION]
    assert all(len(unit.branches) == 3 and unit.text not in [b["action"] for b in unit.branches] for unit in actions)
    assert len({tuple(b["action"] for b in unit.branches) for unit in actions}) > 1  # drawn, not always the first ones


def test_a_branch_is_what_the_action_would_have_led_to():
    episode = with_branches(LEVEL, 4, 9)
    actions = [unit for unit in episode.units if unit.kind == Kind.ACTION]
    assert {len(unit.branches) for unit in actions} == {5}  # all others; "done" is none
    for number in (0, 3, len(actions) - 1):
        for branch in actions[number].branches:
            world = registry.make_environment(LEVEL)
            world.reset(4)
            for earlier in actions[:number]:
                world.step(earlier.text)
            step = world.step(branch["action"])
            (led_to,) = branch["units"]
            assert led_to == {"kind": "observation", "step": number + 1, "data": dict(step.observation.data)}
            assert (branch["reward"], branch["is_done"], branch["is_success"]) == tuple(step[1:])


def test_copies_are_their_own():
    world = registry.make_session("BabyAIText-GoToLocal-v0")
    world.reset("3")
    other = world.copy()
    assert isinstance(world, Branching) and isinstance(registry.make_environment(LEVEL), Branching)
    turned = other.step(Unit(Kind.ACTION, 0, text="turn left"))
    again = world.step(Unit(Kind.ACTION, 0, text="turn left"))
    assert turned == again and other.advice() == world.advice()
    other.step(Unit(Kind.ACTION, 1, text="turn left"))
    assert world.advice() == world.advice() and world.max_steps == other.max_steps


def test_a_world_of_free_text_is_asked_by_replay():
    episode = with_branches("Shop-thinking-v0", 5, 2)
    actions = [unit for unit in episode.units if unit.kind == Kind.ACTION]
    assert not isinstance(registry.make_session("Shop-v0"), Branching)
    assert [len(unit.branches) for unit in actions] == [2, 2, 2]
    assert all(branch["units"][0]["step"] == unit.step + 1 for unit in actions for branch in unit.branches)
    assert with_branches("Shop-thinking-v0", 5, 2) == episode

    mute = Without(registry.make_session("Shop-v0"), "valid_actions")
    with pytest.raises(ValueError, match=r"Shop-v0 does not tell which actions are valid, so branches must be 0"):
        Brancher(mute, 1, lambda: mute)


def test_collections_are_the_same_bytes_and_without_the_flag_as_ever(tmp_path):
    def shards(name, **more):
        directory = collect.collect(
            collect.Collection(LEVEL, num_episodes=6, noise=0.1, **{**SMALL, **more}), tmp_path / name
        )
        return [path.read_bytes() for path in sorted(directory.glob("*/*.jsonl"))]

    one = shards("one", branches=2)
    assert one == shards("two", branches=2, num_workers=2)
    none = shards("none")
    episodes = [sources.record_to_trajectory(json.loads(line)) for shard in one for line in shard.splitlines()]
    assert [sources.encode(plain(t)) for t in episodes] == [line for shard in none for line in shard.splitlines()]
    assert sources.read_manifest(tmp_path / "one").settings["branches"] == 2
    assert "branches" not in sources.read_manifest(tmp_path / "none").settings
    num_actions = sum(unit.kind == Kind.ACTION for t in episodes for unit in t.units)
    manifest = sources.read_manifest(tmp_path / "one")
    assert sum(shard.num_steps for split in manifest.splits.values() for shard in split) == num_actions
    counts = Known.of(map(plain, episodes)).counts(episodes)  # branches make no other episode
    assert counts["num_identical"] == counts["num_episodes"] == len(episodes)
    with pytest.raises(ValueError, match="branches is 2, asked 3"):
        shards("one", branches=3)
    with pytest.raises(ValueError, match="branches: expected >= 0, got -1"):
        shards("bad", branches=-1)


def grid_episode(number, num_actions=5):
    """A corridor's episode, each of whose actions has two branches."""
    episode = corridor.make_trajectory(number, num_actions)
    others = [u for u in corridor.make_trajectory(number + 100, 9).units if u.kind == Kind.OBSERVATION]
    made = []
    for unit in episode.units:
        if unit.kind == Kind.ACTION:
            texts = [text for text in corridor.ACTIONS if text != unit.text]
            led_to = [
                {"kind": "observation", "step": unit.step + 1, "data": others[unit.step + n].data} for n in (0, 3)
            ]
            found = tuple({"action": t, "units": [e]} for t, e in zip(texts, led_to, strict=True))
            unit = dataclasses.replace(unit, branches=found)
        made.append(unit)
    return dataclasses.replace(episode, units=tuple(made))


CODEC = corridor.CorridorCodec("joint")
VOCABULARY = Vocabulary.builtin(CODEC)
EPISODES = [grid_episode(number) for number in range(6)]


def grid_corpus(share, window=2):
    return pipeline.Corpus.build(EPISODES, CODEC, VOCABULARY, window, branch_share=share)


def drawn(corpus, e, order, epoch=0):
    """(example, hidden) as a row has them."""
    rng = keys.generator(0, "mask", epoch, e)
    example = corpus.example(e, epoch)
    return corpus.branched(e, epoch, example, AnyOrderMaskSampler(MaskingConfig(order=order))(rng, example), rng)


@pytest.mark.parametrize("order", ["forward", "prefix"])
@pytest.mark.parametrize("window", [2, 4, 0])
def test_a_drawn_branch_replaces_the_action_and_what_it_led_to(order, window):
    corpus = grid_corpus(1.0, window)
    num_branched = 0
    for e in range(len(corpus.record_E)):
        plainly, (example, hidden) = corpus.example(e), drawn(corpus, e, order)
        assert len(example) <= len(plainly)
        found = tuple(units.detokenise(example, CODEC, VOCABULARY))
        if hidden.order != order:
            continue
        asked = np.unique(example.slots_GL[0][hidden.is_target_L])
        assert (
            asked.tolist() == [len(found) - 1] and np.unique(example.slots_GL[0][hidden.is_hidden_L]).tolist() == asked
        )
        episode = EPISODES[corpus.record_E[e]]
        *before, action, led_to = found
        played = next(u for u in episode.units if u.kind == Kind.ACTION and u.step == action.step)
        assert not action.is_expert and led_to.is_expert
        assert {
            "action": action.text,
            "units": [{"kind": "observation", "step": led_to.step, "data": led_to.data}],
        } in [dict(branch) for branch in played.branches]
        assert all(dataclasses.replace(unit, branches=()) in plain(episode).units for unit in before)
        assert before[-1] == next(u for u in episode.units if u.kind == Kind.OBSERVATION and u.step == action.step)
        if order == "prefix":
            assert not any(unit.kind == Kind.ACTION for unit in before)
        num_branched += 1
    assert num_branched > 5


def test_draws_depend_on_seed_epoch_and_record_alone_and_off_is_off():
    on, half, off = grid_corpus(1.0), grid_corpus(0.5), grid_corpus(0.0)
    unmade = pipeline.Corpus.build([plain(t) for t in EPISODES], CODEC, VOCABULARY, 2)
    numbers = range(len(on.record_E))
    for order in ("any_order", "causal", "inverse", "goal", "forward", "prefix"):
        for e in numbers:
            example, hidden = drawn(off, e, order)
            other, same = drawn(unmade, e, order)
            np.testing.assert_array_equal(example.tokens_L, other.tokens_L)
            np.testing.assert_array_equal(hidden.is_hidden_L, same.is_hidden_L)
            if order not in branches.ORDERS:
                np.testing.assert_array_equal(drawn(on, e, order)[0].tokens_L, other.tokens_L)
    first = [drawn(half, e, "forward")[0].tokens_L.tolist() for e in numbers]
    assert first == [drawn(half, e, "forward")[0].tokens_L.tolist() for e in reversed(numbers)][::-1]
    assert first != [drawn(half, e, "forward", epoch=1)[0].tokens_L.tolist() for e in numbers]
    changed = [
        tokens != drawn(off, e, "forward")[0].tokens_L.tolist() for e, tokens in zip(numbers, first, strict=True)
    ]
    assert 0.2 < np.mean(changed) < 0.8


def test_rows_hold_branches_and_their_complements_ask_no_other_future():
    config = defaults()
    config.masking.order, config.masking.branches, config.masking.complementary = "forward", 1.0, True
    config.train.batch_size, config.data.window, config.data.row_length = 4, 3, 64
    config = freeze(config)
    corpus = grid_corpus(config.masking.branches, config.data.window)
    sampler = AnyOrderMaskSampler(config.masking)
    ways = [pipeline.make_pipeline(
        config, corpus, sampler, mask_id=VOCABULARY.mask_id, pad_id=VOCABULARY.pad_id, num_steps_total=10,
        complement=sampler.complement,
    ) for _ in range(2)]  # fmt: skip
    batch = next(ways[0])
    forward, complement = batch.is_target[0::2], batch.is_target[1::2]
    assert not (forward & complement).any() and forward.any() and complement.any()
    for one, two in zip(batch, next(ways[1]), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    "broken",
    [{}, {"action": 3, "units": []}, {"action": "left", "units": [{"kind": "hero", "step": 1, "text": "x"}]},
     {"action": "left", "units": [{"kind": "action", "step": 1, "text": "x"}]}, {"action": "left", "units": []}],
)  # fmt: skip
def test_a_branch_that_is_none_is_told(broken):
    action = Unit(Kind.ACTION, 0, text="left", branches=(broken,))
    with pytest.raises(ValueError, match=r"units\[0\]\.branches\[0\]"):
        branches.of(Trajectory("x", (action,)))


@pytest.fixture(scope="module")
def collected(tmp_path_factory):
    return collect.collect(
        collect.Collection(LEVEL, num_episodes=8, branches=2, **SMALL), tmp_path_factory.mktemp("branches")
    )


def config_of(directory, **masking):
    config = defaults()
    config.data.path, config.data.num_episodes = str(directory), 0
    config.data.row_length = 512
    config.masking.order, config.masking.branches = "forward", 1.0
    config.masking.update(masking)
    return config


def test_babyai_in_words_is_asked_about_branches(collected):
    config = config_of(collected)
    config.data.profile, config.data.context_tokens, config.data.num_tokens = "words", 256, 400
    config = freeze(config)
    task = open_task(config)
    corpus = task.examples(config, "train")
    number = 0
    for epoch in range(3):
        for e in range(len(corpus.record_E)):
            example, hidden = drawn(corpus, e, "forward", epoch)
            found = units.detokenise(example, task.codec, task.vocabulary)
            if found[-2].is_expert or hidden.order != "forward":
                continue
            number += 1
            assert len(example) <= corpus.lengths(epoch)[e]
            played = next(
                u for u in corpus.trajectory(int(corpus.record_E[e])).units
                if u.kind == Kind.ACTION and u.step == found[-2].step
            )  # fmt: skip
            answers = [
                ["".join(slot.word for slot in task.codec.slots(u)) for u in branch]
                for branch in branches.of(Trajectory("", (played,)))[0]
            ]  # fmt: skip
            assert [u.text for u in found[-2:]] in answers
    assert number > 5


def test_keys_that_cannot_be_met_are_told(collected, tmp_path):
    with pytest.raises(ValueError, match=r"masking.branches: expected 0 with an order that has no forward"):
        freeze(config_of(collected, order="causal"))
    with pytest.raises(ValueError, match=r"masking.branches: expected a share in \[0, 1\]"):
        freeze(config_of(collected, branches=2.0))
    bare = collect.collect(collect.Collection(LEVEL, num_episodes=2, **SMALL), tmp_path / "bare")
    config = freeze(config_of(bare))
    with pytest.raises(ValueError, match=r"masking.branches: the episodes of .*train record none. Collect them with"):
        open_task(config).examples(config, "train")


def test_a_configuration_collects_what_it_needs():
    config = defaults()
    config.data.branches = 3
    data = freeze(config).data
    assert directory_of(data).name == "BabyAI-GoToObj-v0-5000-200-200-branches3"
    assert "--branches=3" in collection(data, directory_of(data))
    assert directory_of(freeze(defaults()).data).name == "BabyAI-GoToObj-v0-5000-200-200"
