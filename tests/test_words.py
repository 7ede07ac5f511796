"""BabyAI in words: what is written of a grid, the level as a world of text, and a run that reads, asks and acts."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import pytest

from anyorder_jax import collect, evaluate, sharding
from anyorder_jax.acting import evaluation as playing
from anyorder_jax.acting.generator import Generator
from anyorder_jax.acting.policy import Advised, Decision, Frequent, Random
from anyorder_jax.acting.rollout import play
from anyorder_jax.config import defaults, freeze
from anyorder_jax.data import sources, units
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import ExpertError, take
from anyorder_jax.environments.play import play_episode, play_text_episode
from anyorder_jax.environments.server import Server
from anyorder_jax.evaluation.held_out import open_held_out
from anyorder_jax.evaluation.request import Request
from anyorder_jax.model import transformer
from anyorder_jax.task import open_task
from anyorder_jax.training import loop, shape
from anyorder_jax.types import Field, Kind, Unit

pytest.importorskip("minigrid", reason="needs the extra `babyai`")

from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX

from anyorder_jax.environments.babyai_words import WORDS, WordsRenderer, in_words, level_of, text_of

LEVEL = "BabyAI-UnlockPickup-v0"
RENDERER = WordsRenderer()


def seen(*things):
    """An observation: (x, y, name, color, state) of cells that are not empty; the agent stands at (3, 6)."""
    image = [[[OBJECT_TO_IDX["empty"], 0, 0] for _ in range(7)] for _ in range(7)]
    for x, y, name, color, state in things:
        image[x][y] = [OBJECT_TO_IDX[name], COLOR_TO_IDX[color], STATE_TO_IDX[state] if state else 0]
    return Unit(Kind.OBSERVATION, 0, data={"image": image, "direction": 0})


# -- what is written ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("things", "lines"),
    [
        ([(3, 3, "wall", "grey", "")], ["a wall 3 steps forward"]),
        ([(5, 3, "door", "purple", "locked")], ["a locked purple door 2 steps right and 3 steps forward"]),
        ([(3, 6, "key", "purple", "")], ["You carry a purple key"]),
        ([(2, 6, "ball", "red", ""), (0, 6, "wall", "grey", "")], ["a red ball 1 step left"]),
        ([(4, 6, "wall", "grey", ""), (1, 6, "wall", "grey", "")], ["a wall 2 steps left", "a wall 1 step right"]),
        ([(3, 5, "door", "red", "open"), (3, 4, "wall", "grey", "")], ["an open red door 1 step forward"]),
        ([(3, 5, "door", "red", "closed"), (0, 0, "wall", "grey", "")], ["a closed red door 1 step forward"]),
        ([(3, 4, "unseen", "red", ""), (3, 3, "wall", "grey", "")], ["nothing in sight"]),
        ([], ["nothing in sight"]),
        (
            [(6, 0, "box", "blue", ""), (0, 5, "ball", "grey", ""), (0, 1, "key", "green", ""),
             (3, 6, "box", "red", "")],
            ["You carry a red box", "a green key 3 steps left and 5 steps forward",
             "a grey ball 3 steps left and 1 step forward", "a blue box 3 steps right and 6 steps forward"],
        ),
    ],
)  # fmt: skip
def test_a_grid_in_words(things, lines):
    assert text_of(seen(*things)) == "\n".join(lines)


def test_every_unit_has_words_and_they_come_back():
    environment = registry.make_environment(LEVEL, "words")
    assert environment.codec.name == "babyai-words" and environment.codec.is_running_text
    for unit in play_episode(environment, 3, noise=0.2).units:
        words = [slot.word for slot in RENDERER.slots(unit)]
        again = RENDERER.unit(unit.kind, unit.step, words)
        assert again.text == text_of(unit) and again.text
        assert [slot.word for slot in RENDERER.slots(again)] == words
        assert unit.kind != Kind.GOAL or again.text == unit.text
        lines = {slot.cell for slot in RENDERER.slots(unit)}
        assert lines == set(range(again.text.count("\n") + 1))
    assert [text_of(Unit(Kind.ACTION, 0, text=name)) for name in WORDS] == list(WORDS.values())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, r"babyai-words: the observation of step 0: expected data with a field 'image'"),
        ({"image": [[1]], "direction": 0}, r"image: expected 7 x 7 x 3 integers"),
        ({"image": 7 * [7 * [[99, 0, 0]]], "direction": 0}, r"cell x=0 y=0: minigrid has no cell \[99, 0, 0\]"),
        ({"image": 7 * [7 * [[1, 0, 0]]], "direction": 4}, r"direction: expected 0, 1, 2 or 3, got 4"),
        ({"image": 7 * [7 * [[1, 0, 0]]], "direction": 1, "occluded": [3]}, "occluded cells, which words cannot show"),
    ],
)
def test_a_broken_observation_is_told(data, message):
    with pytest.raises(ValueError, match=message):
        RENDERER.slots(Unit(Kind.OBSERVATION, 0, data=data))


# -- a world of text ----------------------------------------------------------------------------------


def test_the_world_of_text_is_the_grid_in_words():
    assert registry.world_of_text(LEVEL, "words") == in_words(LEVEL) == "BabyAIText-UnlockPickup-v0"
    assert registry.world_of_text(LEVEL, "joint") == "" and level_of(in_words(LEVEL)) == LEVEL
    assert registry.world_of_text(in_words(LEVEL), "joint") == in_words(LEVEL)
    assert registry.world_of_text("", "words") == "" == registry.world_of_text("Nowhere", "words")
    session, environment = registry.make_session(in_words(LEVEL)), registry.make_environment(LEVEL)
    for seed in (0, 7):
        grid, words = play_episode(environment, seed), play_text_episode(session, str(seed))
        assert [text_of(unit) for unit in grid.units] == [unit.text for unit in words.units]
        assert [(u.kind, u.step) for u in grid.units] == [(u.kind, u.step) for u in words.units]
        assert grid.outcome == words.outcome and words.source["expert"] == "BabyAIBot"
    assert session.max_steps == environment.max_steps


def test_actions_are_words_and_others_are_told():
    session = registry.make_session(in_words(LEVEL))
    with pytest.raises(ValueError, match=r"expected a number .* as task, got 'x'"):
        session.reset("x")
    start = session.reset("3")
    assert [unit.kind for unit in start] == [Kind.GOAL, Kind.OBSERVATION]
    step = take(session, Unit(Kind.ACTION, 0, text="jump"))
    assert step.is_invalid and step.units[0].text.startswith(
        "invalid action: expected one of turn left, turn right, go forward, pick up, drop, toggle, got 'jump'"
    )
    other = registry.make_session(in_words(LEVEL))
    other.reset("3")  # the grid's own names mean the same, and are shown the same
    assert session.step(Unit(Kind.ACTION, 0, text="turn left")) == other.step(Unit(Kind.ACTION, 0, text="left"))
    assert session.valid_actions() == tuple(WORDS[n] for n in ("left", "right", "forward", "pickup", "drop", "toggle"))
    assert take(session, Unit(Kind.ACTION, 1, text="done")).is_invalid


def test_the_expert_goes_on_from_what_was_done_without_it():
    session, environment = registry.make_session(in_words(LEVEL)), registry.make_environment(LEVEL)
    session.reset("5")
    environment.reset(5)
    bot = environment.expert()
    advice = bot.next_action(None)
    for name in ("left", "left", "forward", "right"):
        environment.step(name)
        advice = bot.next_action(name)
        session.step(Unit(Kind.ACTION, 0, text=WORDS[name]))
    assert [unit.text for unit in session.advice()] == [WORDS[advice]] == [unit.text for unit in session.advice()]
    play_text_episode(session, "5")
    with pytest.raises(ExpertError, match="the episode is over"):
        session.advice()


def test_what_is_no_action_takes_a_step_of_the_episode():
    class Stumbling(Advised):
        def act(self, episodes):
            decisions = super().act(episodes)
            stumble = [Decision((Unit(Kind.ACTION, e.step, text="jump"),)) for e in episodes]
            return [s if e.num_steps % 2 == 0 else d for s, d, e in zip(stumble, decisions, episodes, strict=True)]

    with Server(in_words("BabyAI-GoToObjS4-v0"), 1, num_processes=1) as server:
        (episode,) = play(server, ["3"], Stumbling())
    assert episode.is_success and episode.num_invalid > 1
    assert [u.step for u in episode.units if u.kind == Kind.ACTION] == list(range(episode.num_steps))
    assert [u.step for u in episode.units if u.kind == Kind.OBSERVATION] == list(range(episode.num_steps + 1))


def test_sessions_are_played_in_processes():
    with Server(in_words("BabyAI-GoToObjS4-v0"), 4, num_processes=1) as server:
        tasks = [str(seed) for seed in range(6)]
        expert = play(server, tasks, Advised())
        assert all(episode.is_success for episode in expert)
        assert [e.total_reward for e in play(server, tasks, Random(0))] == [
            e.total_reward for e in play(server, tasks, Random(0))
        ]
        assert all(e.num_invalid == 0 for e in play(server, tasks[:2], Frequent("forward")))


# -- a run --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("grid")
    counts = {"num_episodes": 24, "num_validation_episodes": 4, "num_test_episodes": 3}
    return collect.collect(collect.Collection("BabyAI-GoToObjS4-v0", num_workers=1, **counts), directory)


def words_config(data, **sections):
    config = defaults("smoke")
    config.data.path, config.data.profile, config.data.num_episodes = str(data), "words", 0
    config.data.context_tokens, config.data.row_length, config.data.num_tokens = 256, 256, 320
    config.data.max_unit_tokens = 128
    config.masking.order, config.masking.causal_step = "any_order:0.5,causal:0.5", "any"
    config.train.num_steps, config.train.batch_size = 4, 8
    config.log.validate_every_steps = config.checkpoint.save_every_steps = 4
    for key, value in sections.items():
        section, name = key.split("__")
        config[section][name] = value
    return config


def test_the_same_episodes_are_read_in_words(data):
    task = open_task(freeze(words_config(data)))
    assert task.codec.name == "babyai-words" and task.decision() == (Kind.ACTION,)
    trajectory = task.trajectories("train")[0]
    example = units.tokenise(trajectory, task.codec, task.vocabulary, task.layout)
    assert [unit.text for unit in units.detokenise(example, task.codec, task.vocabulary)] == [
        text_of(unit) for unit in trajectory.units
    ]
    assert "step" in " ".join(task.vocabulary.tokenizer.get_vocab())  # it was trained on words, not on grids
    joint = open_task(freeze(words_config(data, data__profile="joint", data__context_tokens=0)))
    assert joint.codec.name == "babyai-joint" and joint.vocabulary.size != task.vocabulary.size
    with pytest.raises(ValueError, match=r"data.profile: expected 'joint', 'attributes' or 'words', got 'word'"):
        freeze(words_config(data, data__profile="word"))
    with pytest.raises(ValueError, match=r"granularity: 'cell' is no span of .*babyai-words.*they offer unit, line"):
        open_task(freeze(words_config(data, masking__granularity="cell")))


def test_what_is_for_grids_says_so(data):
    with pytest.raises(ValueError, match=r"a run of text \(babyai-words\); what is drawn of a grid cannot"):
        open_held_out(freeze(words_config(data)), "", 1, None)


def test_grids_do_not_change_their_words(data):
    codec = registry.make_codec("BabyAI-GoToObjS4-v0", "joint")
    slots = codec.slots(sources.read_trajectories(data, "train")[0].units[1])
    assert len(slots) == 50 and slots[0].field is Field.DIRECTION


class ThenAdvised(Advised):
    """The model's first decision, then the expert's: a model that has learned nothing would act to the last step."""

    def __init__(self, model):
        self.model = model

    def act(self, episodes):
        return (super() if episodes[0].num_steps else self.model).act(episodes)


def test_a_run_in_words_trains_is_asked_and_acts(data, tmp_path, capsys, monkeypatch):
    run = tmp_path / "run"
    make_mesh = sharding.make_mesh  # one device computes this faster than eight
    monkeypatch.setattr(sharding, "make_mesh", lambda config, devices=None: make_mesh(config, jax.devices()[:1]))
    assert loop.train(freeze(words_config(data)), run)
    policies_of = playing.policies_of

    def shorter(*arguments):
        found = policies_of(*arguments)
        return {"model": ThenAdvised(found["model"]), "expert": found["expert"]}

    monkeypatch.setattr(playing, "policies_of", shorter)
    content = evaluate.evaluate(str(run), Request(num_episodes=1, num_windows=1))
    assert content["report"]["about"]["acting"] == "Acting: acting.json."
    questions = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line}
    assert {"decision", "forward", "inverse", "goal", "success"} <= questions
    acting = json.loads((run / "report" / "acting.json").read_text(encoding="utf-8"))
    assert acting["episodes"]["expert"] and all(e["success"] for e in acting["episodes"]["expert"])
    played = sources.read_trajectories(run / "report" / "played", "test")
    tasks = playing.tasks_of(data, "test", 1)
    assert [t.source["task"] for t in played] == tasks and len({t.id for t in played}) == len(tasks)
    for trajectory, episode in zip(played, acting["episodes"]["model"], strict=True):
        assert trajectory.outcome["num_steps"] == episode["steps"]
        assert trajectory.source["environment"] == "BabyAIText-GoToObjS4-v0"


def test_a_policy_sees_what_a_record_shows(data):
    """A live episode's question is that of the recorded episode, token by token."""
    config = freeze(words_config(data))
    task = open_task(config)
    model = shape.model_config_of(config, task)
    params = transformer.init(model, jax.random.key(0), jnp.float32)
    generator = Generator(config, model, params, task)
    recorded = task.trajectories("test")[0]
    session = registry.make_session("BabyAIText-GoToObjS4-v0")
    live = play_text_episode(session, str(recorded.source["seed"]))
    for end in (2, len(live.units) - 1):
        pair = [dataclasses.replace(t, units=t.units[:end]) for t in (recorded, live)]
        one, two = (generator.question(t, (Kind.ACTION,), [1]) for t in pair)
        assert one.example.tokens_L.tolist() == two.example.tokens_L.tolist()
