"""TextWorldExpress: an episode is a function of its task, its expert solves it, what is wrong is told the agent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import java_worlds
from anyorder_jax import collect as collecting
from anyorder_jax import evaluate
from anyorder_jax.data import sources
from anyorder_jax.environments import java, registry
from anyorder_jax.environments.base import ExpertError, take
from anyorder_jax.environments.play import play_text_episode
from anyorder_jax.environments.server import Server
from anyorder_jax.environments.textworld_express import folds
from anyorder_jax.types import Kind, Unit

needs_world = java_worlds.needed("textworld_express", "textworld")
TASKS = ["0", "1", "999", "10000", "10999", "20000", "20999"]  # of all three folds


@pytest.fixture
def session_of():
    """Opens sessions, and closes them."""
    opened = []

    def open_one(environment):
        opened.append(registry.make_session(environment))
        return opened[-1]

    yield open_one
    for session in opened:
        session.close()


def act(session, text, step=0):
    return take(session, Unit(Kind.ACTION, step, text=text))


def test_folds_are_disjoint_and_a_task_names_its_own():
    lists = registry.tasks("TextWorldExpress-TWC")
    assert {split: len(tasks) for split, tasks in lists.items()} == {"train": 1000, "validation": 1000, "test": 1000}
    assert len({task for tasks in lists.values() for task in tasks}) == 3000
    assert [folds.fold_of(lists[split][3]) for split in lists] == [(3, "train"), (10003, "dev"), (20003, "test")]
    for wrong in ("1000", "-1", "", "train/3", "\u0663"):
        with pytest.raises(ValueError, match=r"expected a seed of 0\.\.999 \(train\)"):
            folds.fold_of(wrong)


def test_what_is_missing_is_named(monkeypatch, capsys):
    for simulator, environment, extra in (
        ("textworld_express", "TextWorldExpress-TWC", "textworld"),
        ("scienceworld", "ScienceWorld-easy", "scienceworld"),
    ):
        with monkeypatch.context() as patch:
            for name in list(sys.modules):
                if name.startswith(f"anyorder_jax.environments.{simulator}.world"):
                    patch.delitem(sys.modules, name)
            patch.setitem(sys.modules, simulator, None)
            with pytest.raises(ModuleNotFoundError, match=f"pip install 'anyorder-jax\\[{extra}\\]'"):
                registry.make_session(environment)
            assert not evaluate._can_open(environment)  # a trained run is asked its questions all the same
            assert f"acting is left out: environments: anyorder_jax.environments.{simulator}" in capsys.readouterr().err
        assert registry.make_codec(environment, "joint").is_running_text  # training needs no simulator
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(RuntimeError, match=r"TWC needs Java.*apt-get install default-jre-headless"):
        java.find("TextWorldExpress-TWC")


@needs_world
def test_collecting_without_java_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(SystemExit, match=r"^error: .*TextWorldExpress-TWC needs Java.*default-jre"):
        collecting.main(["--env=TextWorldExpress-TWC", "--num_episodes=1", f"--output_dir={tmp_path}"])
    assert not list(tmp_path.rglob("*.json"))


@needs_world
@pytest.mark.parametrize("game", folds.GAMES)
def test_two_processes_in_opposite_order_play_the_same_bytes(game):
    environment = folds.PREFIX + game
    forwards = java_worlds.lines_of(environment, TASKS)
    backwards = java_worlds.lines_of(environment, TASKS[::-1])
    assert forwards == backwards
    assert len(set(forwards.values())) == len(TASKS)  # and no two alike


@needs_world
@pytest.mark.parametrize("game", folds.GAMES)
def test_the_expert_scores_100_with_actions_that_are_listed_as_valid(session_of, game):
    session = session_of(folds.PREFIX + game)
    for task in ("5", "10005", "20005"):
        start = session.reset(task)
        assert [unit.kind for unit in start] == [Kind.GOAL, Kind.OBSERVATION]
        total = 0.0
        for step in range(session.max_steps):
            (action,) = session.advice()
            assert action.step == step and action.text in session.valid_actions()
            done = take(session, action)
            total += done.reward
            assert 0 <= total <= 100 and not done.is_invalid and done.units[0].step == step + 1
            if done.is_done:
                break
        assert done.is_success and total == 100


@needs_world
def test_an_invalid_action_is_told_the_agent_and_changes_nothing(session_of):
    session, alone = session_of("TextWorldExpress-CookingWorld"), session_of("TextWorldExpress-CookingWorld")
    session.reset("7"), alone.reset("7")
    before = session.valid_actions()
    for step, text in enumerate(("fly to mars", "take the moon", "", "look around\ninventory")):
        done = act(session, text, step)
        assert done.is_invalid and not done.is_done and done.reward == 0 and done.units[0].step == step + 1
        assert done.units[0].text.startswith("invalid action: ")
    assert act(session, "fly to mars", 4).units[0].text == "invalid action: Unknown action: I'm not sure what you mean."
    assert session.valid_actions() == before
    seen = [[take(s, s.advice()[-1]).units[0].text for _ in range(3)] for s in (session, alone)]
    assert seen[0] == seen[1]  # the expert goes on, in the same world


@needs_world
def test_sessions_of_one_machine_do_not_disturb_each_other(session_of):
    environment = "TextWorldExpress-MapReader"
    alone = play_text_episode(session_of(environment), "11")
    first, second = session_of(environment), session_of(environment)
    units = list(first.reset("11"))
    second.reset("12")
    for _ in range(alone.outcome["num_steps"]):
        (action,) = first.advice()
        units += [action, *take(first, action).units]
        take(second, Unit(Kind.ACTION, 0, text=second.valid_actions()[0]))
    assert tuple(units) == alone.units


@needs_world
def test_a_path_that_was_left_is_no_advice_and_noise_is_refused(session_of, tmp_path):
    session = session_of("TextWorldExpress-CookingWorld")
    session.reset("3")
    other = next(text for text in session.valid_actions() if text != session.path()[0])
    act(session, other)
    with pytest.raises(ExpertError, match="path was left"):
        session.advice()
    with pytest.raises(ValueError, match=r"play: the expert of .* noise must be 0"):
        play_text_episode(session, "3", noise=0.1)
    for wrong in ({"noise": 0.1}, {"seed": 1}):
        with pytest.raises(ValueError, match=f"collect: {next(iter(wrong))}: expected 0"):
            collecting.collect(collecting.Collection(session.id, num_episodes=1, **wrong), tmp_path)


@needs_world
def test_a_call_that_an_alarm_cuts_off_does_not_reach_the_next_episode(session_of):
    session = session_of("TextWorldExpress-CookingWorld")
    whole = play_text_episode(session, "4")

    class Alarm(BaseException):
        pass

    def ring(*_):
        raise Alarm

    old = signal.signal(signal.SIGALRM, ring)
    try:
        for delay in (0.002, 0.004, 0.008):
            signal.setitimer(signal.ITIMER_REAL, delay)
            with pytest.raises(Alarm):
                while True:
                    session.reset("5")
            assert play_text_episode(session, "4") == whole
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


@needs_world
def test_java_ends_with_a_process_that_is_killed():
    script = (
        "import os, sys; from anyorder_jax.environments import registry;"
        "s = registry.make_session('TextWorldExpress-TWC'); s.reset('0');"
        "print(s._java._machine._process.pid, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=java_worlds.run_variables()
    )
    java_pid = int(process.stdout.readline())
    assert is_alive(java_pid)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 60
    while is_alive(java_pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(java_pid)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that nobody waited for is dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@needs_world
def test_killed_collections_go_on_without_lost_or_doubled_episodes(tmp_path):
    def start(directory, workers):
        command = [
            sys.executable, "-m", "anyorder_jax.collect", "--env=TextWorldExpress-PeckingOrder", "--num_episodes=60",
            "--num_validation_episodes=3", "--num_test_episodes=3", "--episodes_per_shard=10",
            f"--num_workers={workers}", f"--output_dir={directory}",
        ]  # fmt: skip
        return subprocess.Popen(command, env=java_worlds.run_variables(), start_new_session=True)

    assert start(tmp_path / "whole", 1).wait() == 0
    for num_shards in (1, 3):
        process = start(tmp_path / "killed", 2)
        while process.poll() is None and len(list((tmp_path / "killed").glob("train/*.jsonl"))) < num_shards:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert start(tmp_path / "killed", 2).wait() == 0

    def shards(directory):
        return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*.json*")}

    assert shards(tmp_path / "killed") == shards(tmp_path / "whole")
    tasks = [t.source["task"] for t in sources.read_trajectories(tmp_path / "whole", "train")]
    assert tasks == list(registry.tasks("TextWorldExpress-PeckingOrder")["train"][:60])
    tests = [t.source["task"] for t in sources.read_trajectories(tmp_path / "whole", "test")]
    assert tests == ["20000", "20001", "20002"]


@needs_world
def test_a_server_plays_it():
    """Through processes, as a model does."""
    with Server("TextWorldExpress-Arithmetic", 4, num_processes=2) as server:
        starts = server.call("reset", {number: str(number) for number in range(4)})
        assert len({start.units[1].text for start in starts.values()}) == 4
        valid = server.call("valid_actions", dict.fromkeys(range(4)))
        advice = server.call("advice", dict.fromkeys(range(4)))
        assert all(advice[n][-1].text in valid[n] for n in range(4))
        told = server.call("step", dict.fromkeys(range(4), Unit(Kind.ACTION, 0, text="eat the moon")))
        assert all(step.is_invalid for step in told.values())
