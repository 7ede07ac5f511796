"""Acting in worlds of text: sessions that break, actions that are none, repair, batches, what is counted."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import faulty_world
import shop
import shop_world
from anyorder_jax import collect, task
from anyorder_jax.acting import evaluation, generator, policy
from anyorder_jax.acting.episode import Decision, Episode
from anyorder_jax.acting.rollout import play
from anyorder_jax.config import defaults, freeze
from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import Branching, ExpertError, HasExpert, HasValidActions, TextStep, take
from anyorder_jax.environments.play import play_text_episode
from anyorder_jax.environments.server import Server, SessionError, WorldError
from anyorder_jax.environments.slips import slip
from anyorder_jax.model import transformer
from anyorder_jax.types import Kind, Unit
from runs import tiny_model

WORLD = "Shop-thinking-v0"


@pytest.fixture(autouse=True, scope="module")
def worlds():
    """Both worlds are known, and forgotten again."""
    patch = pytest.MonkeyPatch()
    patch.setenv(registry.WORLDS, "")
    faulty_world.register()
    shop_world.register()
    yield
    patch.undo()


def action(text, step=0):
    return Unit(Kind.ACTION, step, text=text)


class Scripted:
    """Writes what a table of tasks says, step by step, and then ends."""

    def __init__(self, texts):
        self.texts, self.batches = texts, []

    def act(self, episodes):
        self.batches.append(len(episodes))
        return [Decision((action((*self.texts[e.task], "end")[e.num_steps], e.step),)) for e in episodes]


# -- the registry and the protocols -------------------------------------------------------------------


def test_a_world_outside_the_package_is_one_line(monkeypatch):
    assert registry.is_text("Shop-v0") and not registry.is_registered("Stall-v0")
    assert {"Shop-v0", "Faulty-v0"} <= set(registry.environment_ids())
    assert registry.make_codec("Shop-v0", "joint").name == "text"
    monkeypatch.setenv(registry.WORLDS, os.environ[registry.WORLDS] + " Stall-=shop_world Lost-=lost_world")
    with pytest.raises(ModuleNotFoundError, match=r"lost_world needs 'lost_world', which is not .* PYTHONPATH"):
        registry.make_session("Lost-v0")
    with pytest.raises(ValueError, match="Shop-v0 is a world of text; `make_session` opens it"):
        registry.make_environment("Shop-v0")
    with pytest.raises(ValueError, match="'Shop-' belongs to shop_world"):
        registry.register("Shop-", "other_world")
    monkeypatch.setenv(registry.WORLDS, "Shop")
    with pytest.raises(ValueError, match=r"expected PREFIX=MODULE .* got 'Shop'"):
        registry.is_registered("Shop-v0")


def test_verbs_are_found_by_what_a_world_has():
    shop_session, faulty_session = registry.make_session(WORLD), registry.make_session("Faulty-v0")
    assert isinstance(shop_session, HasExpert) and isinstance(shop_session, HasValidActions)
    assert not isinstance(faulty_session, HasExpert | HasValidActions | Branching)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("buy the lamp", "not JSON"),
        (shop.call("steal"), "expected a call of ask, search, buy"),
        (shop.call("buy", id=3), "buy takes id"),
        (shop.call("search", item="boat", color="red"), "there is no red boat"),
    ],
)
def test_an_action_that_is_none_is_an_outcome(text, reason):
    session = registry.make_session(WORLD)
    session.reset("3")
    step = take(session, action(text, 4))
    assert step.is_invalid and not step.is_done and step.reward == 0
    assert step.units == (Unit(Kind.OBSERVATION, 5, text=f"invalid action: {reason}"),)


def test_an_error_of_the_world_is_no_invalid_action():
    session = registry.make_session("Faulty-v0")
    session.reset("3")
    with pytest.raises(RuntimeError, match="the world broke"):
        take(session, action("raise"))


def test_the_expert_plays_and_wrong_actions_are_marked():
    session = registry.make_session(WORLD)
    episode = play_text_episode(session, "7")
    assert [unit.kind for unit in episode.units[2:5]] == [Kind.THOUGHT, Kind.ACTION, Kind.USER]
    assert episode.outcome == {"success": True, "return": 1.0, "num_steps": 3}
    assert episode.source["environment"] == WORLD and episode.source["task"] == "7"
    assert [unit.step for unit in episode.units] == sorted(unit.step for unit in episode.units)
    assert play_text_episode(session, "7") == episode
    noisy = [play_text_episode(session, str(n), 0.2) for n in (0, 1, 4, 8)]
    wrong = [unit for episode in noisy for unit in episode.units if not unit.is_expert]
    assert wrong and all(unit.kind == Kind.ACTION for unit in wrong)


def test_slips_are_refused_answered_and_no_targets_and_the_expert_goes_on():
    session, num_slips = registry.make_session("Shop-v0"), 0
    for number in map(str, range(40)):
        try:
            episode = play_text_episode(session, number, slips=0.4)
        except ExpertError as error:  # it asked for another thing than the world lists as valid, and got it
            assert "was done" in str(error)
            continue
        assert play_text_episode(session, number, slips=0.4) == episode
        units = episode.units
        slips = [n for n, unit in enumerate(units) if not unit.is_expert]
        assert all(units[n + 1].text.startswith("invalid action: ") for n in slips)
        without = [(u.kind, u.text) for n, u in enumerate(units) if not {n, n - 1} & set(slips)]
        assert without == [(u.kind, u.text) for u in play_text_episode(session, number).units]
        assert episode.outcome["num_steps"] == 3 + len(slips) == units[-1].step
        num_slips += len(slips)
    assert num_slips > 10


def test_slips_are_words_of_what_the_world_takes():
    made = {slip(np.random.default_rng(n), ["open fridge", "take red apple"]) for n in range(200)}
    assert {"open red", "open", "take red fridge", "take red", "apple fridge"} <= made
    assert slip(np.random.default_rng(0), ["look"]) is None


# -- sessions that break ------------------------------------------------------------------------------


def test_what_breaks_ends_its_own_episode_alone():
    tasks = {
        "fine": ["count", "print"], "raises": ["count", "raise"], "dies": ["count", "die"],
        "sleeps": ["count", "sleep"],
        "bad": [], "endless": ["count"] * 5, "wrong": ["jump"],
    }  # fmt: skip
    with Server("Faulty-v0", num_sessions=4, num_processes=2, timeout_seconds=1.5) as server:
        episodes = play(server, list(tasks), Scripted(tasks))
        assert server.num_replaced == 2
        found = {e.task: e for e in episodes}
        assert [e.task for e in episodes] == list(tasks) and all(e.is_done for e in episodes)
        assert {name: e.reason for name, e in found.items()} == {
            "fine": "", "wrong": "",
            "raises": "Faulty-v0: step failed: RuntimeError: the world broke",
            "dies": "Faulty-v0: its process died on step (exit code 7)",
            "sleeps": "Faulty-v0: no answer to step within 1.5 seconds",
            "bad": "Faulty-v0: reset failed: ValueError: bad is no task",
            "endless": "no end within 5 steps",
        }  # fmt: skip
        assert [e.is_success for e in episodes] == [True, False, False, False, False, False, True]
        assert [unit.text for unit in found["fine"].units][2:] == ["count", "1", "print", "2", "end", "3"]
        assert found["wrong"].num_invalid == 1
        assert [e.task for e in play(server, ["again", "more"], Scripted({"again": [], "more": []}))] == [
            "again",
            "more",
        ]


def test_neighbours_of_a_lost_process_are_put_where_they_were():
    for world, is_same in (("Faulty-v0", True), ("Faulty-clock-v0", False)):
        with Server(world, num_sessions=2, num_processes=1, timeout_seconds=20) as server:
            server.call("reset", {0: "a", 1: "b"})
            server.call("step", {1: action("count")})
            (lost,) = server.call("step", {0: action("die")}).values()
            assert isinstance(lost, SessionError) and server.num_replaced == 1
            (answer,) = server.call("step", {1: action("count", 1)}).values()
            if is_same:
                assert answer.units == (Unit(Kind.OBSERVATION, 2, text="2"),)
            else:
                assert "the same actions led elsewhere" in str(answer)
            assert isinstance(server.call("reset", {0: "c"})[0].max_steps, int)  # and it goes on


def test_a_world_that_does_not_open_says_why():
    with pytest.raises(WorldError, match="Faulty-closed-v0 does not open: OSError: the shop is closed"):
        Server("Faulty-closed-v0", 2)
    with pytest.raises(ValueError, match="'Nowhere-v0' is no registered world"):
        Server("Nowhere-v0", 2)


PARENT = """
import sys, time
from anyorder_jax.environments.server import Server
from anyorder_jax.types import Kind, Unit
server = Server("Faulty-v0", 3, 3, timeout_seconds=float(sys.argv[1]))
server.call("reset", {0: "a", 1: "b", 2: "c"})
server.submit(0, "step", Unit(Kind.ACTION, 0, text="sleep"))
server.submit(1, "step", Unit(Kind.ACTION, 0, text="hang"))
time.sleep(600)
"""


def is_alive(pid):
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_processes_end_with_a_killed_parent(tmp_path):
    """One waits, one sleeps in Python, one hangs where no thread of Python runs: that one ends after its time limit."""
    environment = {**os.environ, "FAULTY_PIDS": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PARENT, "2"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as parent:
        until = time.monotonic() + 60
        while len(list(tmp_path.iterdir())) < 5 and time.monotonic() < until:
            time.sleep(0.05)
        assert {path.suffix for path in tmp_path.iterdir()} == {"", ".sleep", ".hang"}
        pids = [int(path.name) for path in tmp_path.iterdir() if not path.suffix]
        assert len(pids) == 3 and all(map(is_alive, pids))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    until = time.monotonic() + 60
    while any(map(is_alive, pids)) and time.monotonic() < until:
        time.sleep(0.1)
    left = [pid for pid in pids if is_alive(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left


# -- policies and rollouts ----------------------------------------------------------------------------


def test_counts_of_a_rollout():
    texts = {"a": [shop.call("ask"), shop.call("ask"), shop.call("ask"), "what?", "what?"], "b": [shop.call("ask")] * 5}
    with Server("Shop-v0", 2, 1) as server:
        tasks = {str(n): texts["a" if n % 2 else "b"] for n in range(4)}
        episodes = play(server, list(tasks), Scripted(tasks))
    for n, episode in enumerate(episodes):
        assert episode.num_steps == 6 and not episode.is_success and episode.reason == "no end within 6 steps"
        # after the first one the evidence is the same answer of the user, again and again
        assert (episode.num_repeated, episode.num_invalid) == ((1, 3) if n % 2 else (3, 1))
    measures = evaluation.measures(episodes)
    assert measures["invalid"].value == 8 / 24 and measures["repeated"].value == 8 / 24
    assert measures["success"].value == 0 and measures["steps"].value == 6 and measures["cut_off"].value == 1


def test_those_that_are_ready_are_decided_together():
    tasks = {str(n): ["count"] * (n % 3) for n in range(12)}
    script = Scripted(tasks)
    with Server("Faulty-v0", num_sessions=4, num_processes=2) as server:
        episodes = play(server, list(tasks), script)
    assert [e.num_steps for e in episodes] == [n % 3 + 1 for n in range(12)]
    assert max(script.batches) == 4 and len(script.batches) < sum(e.num_steps for e in episodes)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("shop")
    wanted = collect.Collection(
        WORLD, num_episodes=20, num_validation_episodes=3, num_test_episodes=6, num_workers=1
    )  # fmt: skip
    collect.collect(wanted, directory)
    return directory


@pytest.fixture(scope="module")
def opened(data):
    config = defaults()
    config.data.path, config.data.num_episodes, config.data.num_tokens = str(data), 0, 400
    config.data.context_tokens = config.data.row_length = 128
    config.data.blocks = "action:16,thought:8"
    config = freeze(config)
    opened = task.open_task(config)
    model_config = dataclasses.replace(tiny_model(initializer_range=0.3), vocab_size=opened.vocabulary.size)
    params = transformer.init(model_config, jax.random.key(2), jnp.float32)
    patch = pytest.MonkeyPatch()
    patch.setattr(generator, "MAX_BLOCKS", 1)  # a model that knows nothing knows no end either
    yield opened, generator.Generator(config, model_config, params, opened)
    patch.undo()


def test_collected_episodes_name_their_tasks(data):
    (first, *_) = sources.read_trajectories(data, "test", 6)
    assert evaluation.tasks_of(data, "test", 2) == [first.source["task"], str(int(first.source["task"]) + 1)]
    assert first.source["task"] == str(shop_world.HELD_OUT + 10**6)
    assert sources.read_manifest(data).settings["expert"] == "clerk"


def test_baselines_and_the_expert(data):
    every, first = policy.frequent_actions(sources.read_trajectories(data, "train", 20))
    assert every == first == shop.call("ask")
    tasks = evaluation.tasks_of(data, "test")
    with Server(WORLD, 6, 2) as server:
        expert = play(server, tasks, policy.Advised())
        assert all(e.is_success and e.num_steps == 3 for e in expert)
        assert [unit.kind for unit in expert[0].units[2:4]] == [Kind.THOUGHT, Kind.ACTION]
        assert not any(e.is_success for e in play(server, tasks, policy.Repeated(first)))
        drawn = [[unit.text for unit in e.units] for e in play(server, tasks, policy.Random(0))]
        alone = [[unit.text for unit in e.units] for t in tasks for e in play(server, [t], policy.Random(0))]
        assert drawn == alone and not any("invalid" in text for texts in drawn for text in texts)
    with Server("Faulty-v0", 1, 1) as server:
        (given_up,) = play(server, ["a"], policy.Advised())
        assert given_up.reason == "Faulty-v0 has no expert" and given_up.num_steps == 0 and not given_up.is_success


def test_a_batch_plays_what_single_episodes_play(opened):
    """A model that knows nothing: all its actions are none, whatever it is played with."""
    opened_task, writer = opened
    model = policy.Generated(writer, opened_task.decision())
    with Server(WORLD, 2, 2) as server:
        together = play(server, ["1", "2"], model)
        alone = play(server, ["2"], model)
    assert all([unit.kind for unit in e.units[2:4]] == [Kind.THOUGHT, Kind.ACTION] for e in together)
    for one, other in zip(together[1:], alone, strict=True):
        assert one.units == other.units and one.decisions == other.decisions
        assert one.num_invalid == one.num_steps == 6
        assert all(d.num_repairs == 1 and d.num_passes > 1 and d.num_tokens > 1 for d in one.decisions)


class Writing:
    """A generator with given answers: first the whole decision, then the repair."""

    def __init__(self, generator, answers):
        self._generator, self.answers, self.asked = generator, answers, []

    def write(self, episodes, kinds, unseen):
        self.asked.append((kinds, [episode.units[-1].kind for episode in episodes]))
        written = self._generator.write(episodes, kinds)
        texts = self.answers.pop(0)
        return [
            w._replace(units=(*w.units[:-1], dataclasses.replace(w.units[-1], text=text)))
            for w, text in zip(written, texts, strict=True)
        ]


def test_an_action_that_does_not_parse_is_repaired_once(opened, monkeypatch):
    _, writer = opened
    ask = shop.call("ask")
    writing = Writing(writer, [[ask, "ask!", '{"name":'], [ask, "still not"]])
    careful = []
    monkeypatch.setattr(policy, "with_decoding", lambda g, decoding: careful.append(decoding) or writing)
    writing.decoding = writer.decoding
    model = policy.Generated(writing, (Kind.THOUGHT, Kind.ACTION))
    with Server(WORLD, 3, 1) as server:
        episodes = [Episode(name, server, n) for n, name in enumerate("123")]
        for episode in episodes:
            episode.begin(episode.ask("reset", episode.task).result())
        fine, mended, broken = model.act(episodes)
        assert careful == [writer.decoding._replace(is_left_to_right=True)]
        assert [d.num_repairs for d in (fine, mended, broken)] == [0, 1, 1]
        assert [d.units[-1].text for d in (fine, mended, broken)] == [ask, ask, "still not"]
        (_, before), (kinds, after) = writing.asked
        assert kinds == [(Kind.ACTION,)] * 2 and set(after) == {Kind.THOUGHT}  # the thought stays, the action goes
        assert set(before) == {Kind.OBSERVATION}
        episodes[2].take(episodes[2].decide(broken).result())
        assert episodes[2].units[-1].text == "invalid action: not JSON" and episodes[2].num_invalid == 1


def test_repairs_are_written_from_left_to_right(opened):
    _, writer = opened
    seen = play_text_episode(registry.make_session(WORLD), "5")
    seen = dataclasses.replace(seen, units=seen.units[:3])
    careful = policy.with_decoding(writer, writer.decoding._replace(is_left_to_right=True, threshold=0.0))
    (written,) = careful.write([seen], [(Kind.ACTION,)])
    (fast,) = policy.with_decoding(writer, writer.decoding._replace(threshold=0.0)).write([seen], [(Kind.ACTION,)])
    assert written.num_passes >= len(written.ids[0]) > fast.num_passes


def test_every_policy_plays_the_same_tasks(opened, data):
    opened_task, writer = opened
    lines = []
    tasks = evaluation.tasks_of(data, "test", 2)
    found = evaluation.evaluate(opened_task, writer, WORLD, tasks, say=lines.append)
    assert set(found["policies"]) == {"model", "random_valid", "most_frequent", "repeat_last", "expert"}
    assert found["tasks"] == tasks and len(lines) == 5
    expert, model = (found["policies"][name] for name in ("expert", "model"))
    assert expert["measures"]["success"].value == 1 and expert["measures"]["invalid"].value == 0
    assert model["measures"]["invalid"].value == 1 and model["reasons"] == {"no end within 6 steps": 2}
    assert model["measures"]["passes_per_action"].value > 1
    content = json.loads(json.dumps(evaluation.as_json(found), allow_nan=False))
    assert content["measures"]["expert"]["success"]["value"] == 1
    assert [e["task"] for e in content["episodes"]["model"]] == tasks
    assert content["reasons"]["model"] == model["reasons"]
    lines = evaluation.table(found).split("\n")
    assert lines[1].startswith("success ") and lines[1].count("1.00 [") == 1
    assert "model: 2 x no end within 6 steps" in lines


def test_the_best_return_is_the_highest_on_the_way():
    """A score may fall again; what is reported beside the final one is what was reached."""
    episode = Episode("7", None, 0, max_steps=9)
    for reward in (50.0, 25.0, -75.0):
        episode.take(TextStep((), reward, False, False))
    assert (episode.total_reward, episode.best_return) == (0, 75)
    found = evaluation.measures([episode])
    assert (found["return"].value, found["best_return"].value) == (0, 75)
