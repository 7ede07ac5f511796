"""Episodes become records of other trainers and, ingested, the same episodes again; what is there stays whole."""

import json
import random
import subprocess
import sys

import pytest

import shop
import shop_world
from anyorder_jax import collect, ingest
from anyorder_jax.data import sources
from anyorder_jax.environments import registry
from anyorder_jax.export_episodes import export, in_text, main
from anyorder_jax.formats import registry as formats
from anyorder_jax.formats.parts import Reading
from anyorder_jax.formats.writing import WRITERS
from anyorder_jax.types import Kind, Trajectory, Unit

pytest.importorskip("minigrid", reason="needs the extra `babyai`")

FORMATS = sorted(WRITERS)
SMALL = {"num_validation_episodes": 3, "num_test_episodes": 3, "num_workers": 1}


@pytest.fixture(autouse=True)
def worlds(monkeypatch):
    monkeypatch.setenv(registry.WORLDS, "")
    shop_world.register()


@pytest.fixture(scope="module")
def babyai(tmp_path_factory):
    """A collection of the grid."""
    return collect.collect(
        collect.Collection("BabyAI-UnlockPickup-v0", num_episodes=12, noise=0.2, **SMALL),
        tmp_path_factory.mktemp("grid"),
    )


def write(directory, trajectories, environment=""):
    file = "train/shard-00000.jsonl"
    num_bytes, digest = sources.write_shard(directory / file, map(sources.encode, trajectories))
    shard = sources.Shard(file, len(trajectories), 0, num_bytes, digest)
    sources.write_manifest(directory, sources.Manifest(environment, {}, {"train": (shard,)}))
    return directory


def ingested(file, directory):
    ingest.ingest([str(file)], directory, validation=0, test=0, num_workers=1)
    return sources.read_trajectories(directory, "train")


def again(record, name):
    return formats.read(json.loads(json.dumps(record)), name)


def own_source(trajectory):
    """What a trajectory's source says, without where it was read."""
    return {key: value for key, value in trajectory.source.items() if key not in ("format", "file", "line", "task")}


def assert_same(found, expected):
    assert {t.id: t.units for t in found} == {t.id: t.units for t in expected}
    by_id = {t.id: t for t in expected}
    for trajectory in found:
        was = by_id[trajectory.id]
        assert trajectory.outcome == was.outcome
        assert own_source(trajectory) == {"environment": "", **own_source(was)}
        task = was.source.get("task", was.source.get("seed"))
        assert task is None or trajectory.source["task"] == str(task)


@pytest.mark.parametrize("name", FORMATS)
def test_babyai_in_words_comes_back(babyai, tmp_path, name):
    counts = export(babyai, tmp_path / "out.jsonl", format=name)
    codec = registry.make_codec("BabyAI-UnlockPickup-v0", "words")
    expected = [in_text(t, "BabyAIText-UnlockPickup-v0", codec) for t in sources.read_trajectories(babyai, "train")]
    assert counts["episodes"] == len(expected) == 12
    assert any(not unit.is_expert for t in expected for unit in t.units)
    assert_same(ingested(tmp_path / "out.jsonl", tmp_path / "again"), expected)
    assert all(unit.data is None and unit.text for t in expected for unit in t.units)


@pytest.mark.parametrize("name", FORMATS)
def test_a_world_of_text_comes_back(tmp_path, name):
    data = collect.collect(
        collect.Collection("Shop-thinking-v0", num_episodes=10, noise=0.2, **SMALL), tmp_path / "data"
    )
    export(data, tmp_path / "out.jsonl", format=name)
    assert_same(ingested(tmp_path / "out.jsonl", tmp_path / "again"), sources.read_trajectories(data, "train"))


@pytest.mark.parametrize("name", FORMATS)
def test_thoughts_a_user_and_two_calls_in_a_row_come_back_from_ingested_logs_too(tmp_path, name):
    expected = [shop.make_trajectory(number) for number in range(12)]
    data = write(tmp_path / "data", expected)
    export(data, tmp_path / "a.jsonl", format=name)
    first = ingested(tmp_path / "a.jsonl", tmp_path / "again")
    assert_same(first, expected)
    other = next(n for n in FORMATS if n != name)  # and over the other format back
    export(tmp_path / "again", tmp_path / "b.jsonl", format=other)
    assert_same(ingested(tmp_path / "b.jsonl", tmp_path / "third"), expected)


def test_what_other_trainers_see():
    record = WRITERS["messages"](shop.make_trajectory(5))  # its last action is not to be learned
    roles = [message["role"] for message in record["messages"]]
    assert roles == ["system", "user", "user", "assistant", "user", "assistant", "tool", "tool", "assistant", "tool"]
    thought, two, last = (record["messages"][i] for i in (3, 5, 8))
    assert thought["reasoning_content"] == "I do not know the color."
    assert thought["content"] == "Which color do you want?" and "tool_calls" not in thought
    assert two["content"] is None
    ids = [call["id"] for call in two["tool_calls"]]
    assert ids == [message["tool_call_id"] for message in record["messages"][6:8]] and len(set(ids)) == 2
    assert json.loads(two["tool_calls"][0]["function"]["arguments"])["color"] != "any"
    assert last["tool_calls"] and last["reasoning_content"] and last["weight"] == 0 and "weight" not in two

    document = WRITERS["atif"](shop.make_trajectory(5))
    assert document["schema_version"].startswith("ATIF-v1.") and set(document["agent"]) == {"name", "version"}
    assert [step["step_id"] for step in document["steps"]] == list(range(1, len(document["steps"]) + 1))
    calls = next(step for step in document["steps"] if len(step.get("tool_calls", ())) == 2)
    assert [c["tool_call_id"] for c in calls["tool_calls"]] == [
        result["source_call_id"] for result in calls["observation"]["results"]
    ]
    assert all(isinstance(c["arguments"], dict) for c in calls["tool_calls"])


TEXTS = ("", " ", "ok", "Thought: a\nAction: b", "<think>x</think> y", '{"name": "f", "arguments": {}}',
         "<|mask|>\u2028", '{"name":"f","arguments":{"x":1.50}}', '{"name":"f","arguments":{"x":[1,"é"]}}',
         '{"name":"f","arguments":3}',
         "```bash\nls\n```", "<tool_call>{}</tool_call>", "Observation: z", '[{"content":"1","name":"f"}]')  # fmt: skip


@pytest.mark.parametrize("name", FORMATS)
def test_any_units_in_any_order_come_back(name):
    rng = random.Random(3)
    for number in range(150):
        step, units = 0, []
        for _ in range(rng.randint(1, 9)):
            step += rng.randint(0, 1)
            units.append(Unit(rng.choice(list(Kind)), step, rng.choice(TEXTS), is_expert=rng.random() < 0.8))
        units.insert(rng.randint(0, len(units)), Unit(Kind.ACTION, 0, "go"))
        units = [Unit(u.kind, i // 2, u.text, is_expert=u.is_expert) for i, u in enumerate(units)]
        trajectory = Trajectory(f"t{number}", tuple(units), {"return": 0.25}, {"task": "7", "environment": "X"})
        reading = Reading()
        found = formats.read(json.loads(json.dumps(WRITERS[name](trajectory))), "auto", reading=reading)
        assert found.units == trajectory.units and not reading.counts
        assert found.source["format"] == name and found.source["environment"] == "X"


@pytest.mark.parametrize("name", FORMATS)
def test_a_record_that_somebody_changed_is_read_like_any_log(name):
    record = WRITERS[name](shop.make_trajectory(1))
    turns = record["messages" if name == "messages" else "steps"]
    turns[1]["content" if name == "messages" else "message"] = "Buy two lamps."
    reading = Reading()
    found = formats.read(record, name, reading=reading)
    assert reading.counts["changed_exports"] == 1
    assert [unit.text for unit in found.units if unit.kind == Kind.GOAL] == ["Buy two lamps."]
    for broken in ("x", {}, {"version": 1}, {"version": 1, "units": [{"kind": "goal", "step": "0"}], "digest": ""},
                   {"version": 1, "units": [{"kind": "hero", "step": 0}] * 3, "digest": 1}):  # fmt: skip
        record["extra"]["anyorder_jax"] = broken
        assert formats.read(record, name).units == found.units


def test_without_a_layout_thoughts_calls_and_results_are_still_found():
    trajectory = shop.make_trajectory(1)
    for name in FORMATS:
        record = WRITERS[name](trajectory)
        del record["extra"]
        found = again(record, name)
        assert [u.text for u in found.units] == [u.text for u in trajectory.units], name


def test_splits_force_and_bad_input(babyai, tmp_path, capsys):
    out = tmp_path / "deep" / "out.jsonl"
    assert export(babyai, out, format="messages", split="test")["episodes"] == 3
    before = out.read_bytes()
    with pytest.raises(OSError, match=r"out.jsonl is there already. Give --force"):
        export(babyai, out, format="messages")
    assert out.read_bytes() == before
    assert export(babyai, out, format="atif", force=True)["episodes"] == 12
    for more, message in (
        ({"format": "csv"}, "format: expected one of messages, atif, got 'csv'"),
        ({"split": "all"}, "split: expected one of train, validation, test, got 'all'"),
        ({"on_bad_record": "no"}, "on_bad_record: expected one of stop, skip"),
        ({"profile": "joint"}, "are grids, which profile 'joint' does not write as text"),
        ({"output": babyai / "train" / "shard-00000.jsonl", "force": True}, "lies in .* which is the input"),
        ({"output": tmp_path}, "is a directory; name a file in it"),
        ({"input_dir": tmp_path / "none"}, "no such directory"),
        ({"input_dir": babyai, "split": "train", "profile": "poems"}, "profile 'poems' is unknown"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            export(**{"input_dir": babyai, "output": tmp_path / "new", "format": "messages", **more})
        assert not (tmp_path / "new").exists()
    with pytest.raises(SystemExit, match="error: export_episodes: format"):
        main([f"--input={babyai}", f"--output={tmp_path / 'new'}", "--format=csv"])
    main([f"--input={babyai}", f"--output={tmp_path / 'new'}", "--format=atif", "--split=validation"])
    assert "3 episodes" in capsys.readouterr().out


def test_a_bad_episode_stops_all_or_is_left_out(tmp_path):
    good, silent = shop.make_trajectory(1), Trajectory("silent", (Unit(Kind.GOAL, 0, "Buy."),))
    grid = Trajectory("grid", (Unit(Kind.GOAL, 0, "Go."), Unit(Kind.ACTION, 0, data={"x": 1})))
    data = write(tmp_path / "data", [good, silent, grid])
    out = tmp_path / "out.jsonl"
    with pytest.raises(
        ValueError, match=r"shard-00000.jsonl:3: trajectory grid: text: the action of step 0 has struct"
    ):
        export(data, out, format="messages")
    assert not list(tmp_path.glob("out*"))  # no part either
    counts = export(data, out, format="messages", on_bad_record="skip")
    assert (counts["episodes"], counts["no_decision"], counts["skipped"]) == (1, 1, 1)
    assert len(out.read_text(encoding="utf-8").splitlines()) == 1


def test_the_command_writes_where_a_pipe_reads(babyai):
    command = [sys.executable, "-m", "anyorder_jax.export_episodes", f"--input={babyai}", "--format=messages"]
    done = subprocess.run([*command, "--output=/dev/stderr"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith('{"id":') for line in done.stderr.splitlines()) == 12
