"""ToolBench's logs become episodes that its world plays; episodes are collected; runs act in its worlds."""

import dataclasses
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import java_worlds
from anyorder_jax import collect as collecting
from anyorder_jax import evaluate
from anyorder_jax import ingest as ingesting
from anyorder_jax.acting import evaluation
from anyorder_jax.asking.subject import Subject
from anyorder_jax.config import freeze
from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.base import take
from anyorder_jax.environments.server import Server
from anyorder_jax.environments.toolbench import data, sample
from anyorder_jax.evaluation.request import Request
from anyorder_jax.types import Kind, Unit

ROOT = Path(__file__).parents[1]
WORLDS = data.ids()[::2]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    directory = tmp_path_factory.mktemp("toolbench")
    sample.write(directory)
    return directory


@pytest.fixture(autouse=True)
def named(root, monkeypatch):
    monkeypatch.setenv(data.VARIABLE, str(root))


def played(session, task, texts):
    """Every step."""
    session.reset(task)
    return [take(session, Unit(Kind.ACTION, step, text=text)) for step, text in enumerate(texts)]


def test_logs_of_answers_become_episodes_whose_calls_solve_their_queries(root, tmp_path):
    ingesting.main([f"--input={root / 'answer'}", f"--output_dir={tmp_path / 'trees'}", "--num_workers=1"])
    ingesting.main(
        [f"--input={root / 'toolllama_sample.json'}", f"--output_dir={tmp_path / 'steps'}", "--num_workers=1"]
    )
    by_words = {
        " ".join(data.instruction(root, task)["query"].split()): (world, task)
        for world in WORLDS
        for split in ("train", "validation")
        for task in registry.tasks(world)[split]
    }
    for kind in ("trees", "steps"):
        episodes = [e for split in sources.SPLITS for e in sources.read_trajectories(tmp_path / kind, split)]
        assert len(episodes) == 30
        for episode in episodes:
            goal = next(unit for unit in episode.units if unit.kind is Kind.GOAL)
            world, task = by_words[" ".join(goal.text.split()).removesuffix(" Begin!")]
            actions = [unit for unit in episode.units if unit.kind is Kind.ACTION]
            assert all(unit.is_expert for unit in actions)
            steps = played(registry.make_session(world), task, [unit.text for unit in actions])
            assert steps[-1].is_success
            told = [json.loads(unit.text) for unit in episode.units if unit.kind is Kind.TOOL]
            assert told[: len(steps) - 1] == [json.loads(step.units[0].text) for step in steps[:-1]]


def test_answers_without_a_tree_are_read_by_their_last_chain():
    from anyorder_jax.formats import registry as formats

    def node(kind, text, observation=""):
        return {"node_type": kind, "description": text, "observation": observation}

    chain = [node("Thought", "a"), node("Action", "get_x"), node("Action Input", '{"n": 1}', "7")]
    chain += [node("Action", "get_y"), node("Action Input", "{}", "8")]
    record = {
        "win": False, "trys": [{"chain": chain[:1]}, {"chain": chain}],
        "answer_generation": {"query": "Which n?", "function": [], "train_messages": []},
    }  # fmt: skip
    read = formats.read(record, "auto")
    assert [(unit.kind, unit.text) for unit in read.units] == [
        (Kind.GOAL, "Which n?"), (Kind.THOUGHT, "a"), (Kind.ACTION, '{"name":"get_x","arguments":{"n":1}}'),
        (Kind.TOOL, "7"), (Kind.ACTION, '{"name":"get_y","arguments":{}}'), (Kind.TOOL, "8"),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="nor a chain in its trys"):
        formats.read({**record, "trys": []}, "auto")


def test_episodes_are_collected_and_processes_play_the_same_bytes(tmp_path):
    collecting.main(
        ["--env=ToolBench-G3-instruction", "--num_episodes=6", "--num_validation_episodes=2", "--num_test_episodes=20",
         "--branches=2", "--num_workers=1", f"--output_dir={tmp_path}"]
    )  # fmt: skip
    episodes = list(sources.read_trajectories(tmp_path, "test"))
    assert [e.source["task"] for e in episodes] == list(registry.tasks("ToolBench-G3-instruction")["test"])
    for unit in (unit for episode in episodes for unit in episode.units if unit.kind is Kind.ACTION):
        assert len(unit.branches) == 2 and unit.text not in {branch["action"] for branch in unit.branches}
    tasks = registry.tasks("ToolBench-G2-category")["test"]
    world = "ToolBench-G2-category+names=edited+errors=0.3+cut=80"
    assert java_worlds.lines_of(world, tasks) == java_worlds.lines_of(world, tasks[::-1])
    with Server(world, 2, num_processes=1) as server:
        server.call("reset", dict.fromkeys(range(2), tasks[0]))
        (advice,) = server.call("advice", {0: None})[0]
        assert advice.text.startswith('{"name":') and len(server.call("valid_actions", {0: None})[0]) > 3
        assert server.call("step", {1: Unit(Kind.ACTION, 0, text="rm -rf /")})[1].is_invalid


def test_the_sample_is_written_by_a_command(tmp_path):
    code = ["-m", "anyorder_jax.environments.toolbench.sample", f"--output_dir={tmp_path}", "--num_queries=2"]
    done = subprocess.run([sys.executable, *code], capture_output=True, text=True, check=True)
    assert f"export {data.VARIABLE}=" in done.stdout
    assert len(json.loads((tmp_path / "test_instruction" / "G3_instruction.json").read_text(encoding="utf-8"))) == 2


def test_a_run_of_text_acts_on_the_test_tasks_of_another_world(tmp_path, monkeypatch):
    begun = []
    monkeypatch.setattr(evaluate, "_act_in_text", lambda *found: begun.append(found) or {})
    monkeypatch.setattr(evaluate.weights, "load_for_inference", lambda *found: "loaded")
    config = freeze(runpy.run_path(str(ROOT / "configs" / "toolbench.py"))["get_config"]())
    subject = Subject(str(tmp_path), tmp_path, 1, config, {"environment": "ToolBench-G1-instruction"})
    monkeypatch.setattr(evaluate, "is_of_text", lambda config: True)
    request = Request(environment="ToolBench-G1-tool+names=edited", num_episodes=3)
    assert evaluate._one_source(
        subject,
        tmp_path / "there",
        request,
    ) == {"acting": {}}
    assert begun == [(subject, "loaded", request.environment, tmp_path / "there", request)]
    tasks = registry.tasks("ToolBench-G1-tool")
    for split in ("test", "train"):
        assert evaluation.tasks_in(request.environment, ["7"], split, 3) == list(tasks[split][:3])
    first = [str(seed) for seed in sources.seed_range(0, "test")[:2]]
    assert evaluation.tasks_in("BFCL-made-classes", ["base_3", "base_4"], "test", 2) == first  # any number is a task
    assert evaluation.tasks_in("BFCL-made-classes", ["12", "34", "56"], "test", 2) == ["12", "34"]
    for wrong, told in (
        ("ToolBench-G1-tool+name=edited", "option 'name' is unknown"), ("ToolBench-G9", "Did you mean"),
        ("BabyAI-GoToObj-v0", "is no world of text"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            evaluate._one_source(subject, tmp_path / "there", dataclasses.replace(request, environment=wrong))
