"""ScienceWorld: an episode is a function of its task, whatever was played before; scores; gold paths as experts."""

import itertools
import subprocess
import sys

import pytest

import java_worlds
from anyorder_jax.acting import evaluation
from anyorder_jax.acting.policy import Advised, Random
from anyorder_jax.acting.rollout import play
from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import ExpertError, take
from anyorder_jax.environments.play import play_text_episode
from anyorder_jax.environments.scienceworld import folds
from anyorder_jax.environments.server import Server
from anyorder_jax.types import Kind, Unit

needs_world = java_worlds.needed("scienceworld", "scienceworld")
EASY = "ScienceWorld-easy"
# The paint's gold path looks for it along paths that the simulator keeps from one episode to the next.
TASKS = [
    "chemistry-mix-paint-secondary-color/6", "find-non-living-thing/0", "lifespan-longest-lived/70",
    "chemistry-mix-paint-secondary-color/31", "find-plant/230",
]  # fmt: skip


@pytest.fixture(scope="module")
def session():
    """One machine for the tests that do not ask for another."""
    opened = registry.make_session(EASY)
    yield opened
    opened.close()


def test_tasks_of_every_id_are_its_kinds_and_official_variations():
    lists = registry.tasks(EASY)
    sizes = [sum(counts[i] for counts in folds.VARIATIONS.values()) for i in range(3)]
    assert [len(lists[split]) for split in ("train", "validation", "test")] == sizes
    assert len({task for tasks in lists.values() for task in tasks}) == sum(sizes)
    assert {task.split("/")[0] for task in lists["train"][:30]} == set(folds.VARIATIONS)
    assert lists["validation"][0] == "boil/14" and registry.tasks("ScienceWorld-plain-melt")["test"][0] == "melt/21"
    assert len(folds.SHORT) == 7 and len(registry.tasks("ScienceWorld-easy-short")["train"]) == 4 * 150 + 3 * 62
    assert len(folds.ids()) == 2 * 32
    for wrong in ("melt", "melt/30", "melt/-1", "boil/0", ""):
        with pytest.raises(ValueError, match="expected KIND/VARIATION of melt as task, such as melt/0"):
            folds.split_task("ScienceWorld-easy-melt", wrong)


@needs_world
def test_the_table_of_variations_is_the_simulators(session):
    session.reset("melt/0")
    client = session._java
    assert set(client.texts("getTaskNames")) == set(folds.VARIATIONS)
    for kind, counts in folds.VARIATIONS.items():
        client.call("load", kind, 0, "easy", False)
        found = [list(client.call(f"getVariations{split}")) for split in ("Train", "Dev", "Test")]
        assert [len(variations) for variations in found] == list(counts)
        assert list(itertools.chain(*found)) == list(range(sum(counts)))


@needs_world
def test_two_processes_in_opposite_order_play_the_same_bytes():
    forwards = java_worlds.lines_of(EASY, TASKS)
    assert forwards == java_worlds.lines_of(EASY, TASKS[::-1])
    assert len(set(forwards.values())) == len(TASKS)


@needs_world
def test_the_expert_reaches_100_and_scores_stay_between(session):
    for task in ("lifespan-shortest-lived/0", "find-animal/200"):
        goal, seen = session.reset(task)
        assert (goal.kind, seen.kind) == (Kind.GOAL, Kind.OBSERVATION) and goal.text.startswith("Your task is to")
        score = 0.0
        for step in range(session.max_steps):
            (action,) = session.advice()
            done = take(session, action)
            score += done.reward
            assert action.step == step and 0 <= score <= 100 and not done.is_invalid
            if done.is_done:
                break
        assert done.is_success and score == 100


@needs_world
def test_advice_asked_late_leads_on_from_where_the_episode_stands(session):
    """The gold path costs a second load, which must lead back to the same place."""
    whole = play_text_episode(session, "find-plant/3")
    actions = [unit for unit in whole.units if unit.kind == Kind.ACTION]
    units = list(session.reset("find-plant/3"))
    for action in actions[:4]:
        units += [action, *take(session, action).units]
    for _ in actions[4:]:
        (action,) = session.advice()
        units += [action, *take(session, action).units]
    assert tuple(units) == whole.units


@needs_world
def test_what_is_wrong_is_told_the_agent(session):
    session.reset("find-plant/3")
    before = session.valid_actions()
    assert len(before) > 100 and before == sorted(before) and "look around" in before
    told = take(session, Unit(Kind.ACTION, 0, text="fly to mars"))
    assert told.is_invalid and not told.is_done and told.reward == 0
    assert told.units[0].text == "invalid action: No known action matches that input."
    assert take(session, Unit(Kind.ACTION, 1, text="go to\nkitchen")).is_invalid
    assert session.valid_actions() == before
    assert not take(session, session.advice()[-1]).is_invalid
    assert not take(session, Unit(Kind.ACTION, 3, text="look around")).is_invalid
    with pytest.raises(ExpertError, match="path was left"):
        session.advice()


@needs_world
def test_the_wrong_thing_in_focus_ends_the_episode_with_score_0(session):
    """The simulator says -100 then."""
    session.reset("find-plant/3")
    total, step = 0.0, 0
    for text in ("go to kitchen", "focus on table"):
        done = take(session, Unit(Kind.ACTION, step, text=text))
        total, step = total + done.reward, step + 1
    assert done.is_done and not done.is_success and total == 0


@needs_world
def test_collect_stops_where_the_list_ends_and_says_so(tmp_path):
    """Of four training, two validation and four test variations, and resumed: nothing is played again."""
    environment = "ScienceWorld-easy-identify-life-stages-2"
    command = [
        sys.executable, "-m", "anyorder_jax.collect", f"--env={environment}", "--num_episodes=200",
        "--episodes_per_shard=3", "--num_workers=2", "--max_seconds_per_episode=300", f"--output_dir={tmp_path}",
    ]  # fmt: skip
    said = [
        subprocess.run(command, env=java_worlds.run_variables(), capture_output=True, check=True, text=True).stdout
        for _ in range(2)
    ]
    assert said[0] == said[1] and "200 were asked for, but no task of the split is left." in said[0]
    manifest = sources.read_manifest(tmp_path)
    for split, count in (("train", 4), ("validation", 2), ("test", 4)):
        shards = manifest.splits[split]
        failures = [seed for shard in shards for seed, _ in shard.failures]
        assert sum(shard.num_episodes for shard in shards) + len(failures) == count
        assert shards[-1].seeds[1] - shards[0].seeds[0] == count
        tasks = [t.source["task"] for t in sources.read_trajectories(tmp_path, split)]
        listed = registry.tasks(environment)[split]
        first = sources.seed_range(0, split).start
        assert tasks == [task for number, task in enumerate(listed) if first + number not in failures]


@needs_world
def test_scores_stand_beside_success():
    """Of a few steps by chance and of the expert, through the server."""
    environment, tasks = "ScienceWorld-easy-find-non-living-thing", ["find-non-living-thing/240"] * 2
    assert registry.max_sessions(environment) == 4
    with Server(environment, 2, num_processes=2, timeout_seconds=120) as server:
        chance, expert = (evaluation.measures(play(server, tasks, policy)) for policy in (Random(0), Advised()))
    assert expert["success"].value == 1 and expert["return"].value == expert["best_return"].value == 100
    assert 0 <= chance["return"].value <= chance["best_return"].value <= 100
    assert 0 <= chance["invalid"].value < 0.5
