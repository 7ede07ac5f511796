"""ATIF, ADP and ToolBench become units; formats are recognised; what cannot be read is told; what is cut is seen."""

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import logs
from anyorder_jax.data import sources
from anyorder_jax.formats import registry, toolbench
from anyorder_jax.formats.cuts import is_cut
from anyorder_jax.formats.parts import Reading
from anyorder_jax.types import Kind
from logs import messages, read, units, untrained

SYSTEM, GOAL, USER, OBSERVATION = Kind.SYSTEM, Kind.GOAL, Kind.USER, Kind.OBSERVATION
THOUGHT, ACTION, TOOL = Kind.THOUGHT, Kind.ACTION, Kind.TOOL


def test_atif():
    trajectory = read(logs.atif())
    assert units(trajectory)[2:] == [
        (GOAL, 0, "Two prices, please."),
        (OBSERVATION, 0, "The shop is open."),
        (THOUGHT, 0, "Ask for both."),
        (ACTION, 0, "One moment."),
        (ACTION, 0, '{"name":"price","arguments":{"item":"tea"}}'),
        (ACTION, 0, '{"name":"price","arguments":{"item":"rice"}}'),
        (TOOL, 0, "2"),
        (ACTION, 1, "Rice costs 2."),
    ]
    assert untrained(trajectory) == [unit.text for unit in trajectory.units[4:8]]
    assert trajectory.id == "s1" and trajectory.outcome == {"success": True, "return": 0.5, "num_steps": 2}
    assert units(read(logs.atif("ATIF-v1.7"))) == units(trajectory)


def test_atif_results_of_no_call_are_observations():
    step = {"step_id": 1, "source": "agent", "message": "look", "observation": {"results": [{"content": "a wall"}]}}
    record = {"schema_version": "ATIF-v1.7", "steps": [{"step_id": 0, "source": "user", "message": "go"}, step, step]}
    assert units(read(record))[1:] == [
        (ACTION, 0, "look"), (OBSERVATION, 1, "a wall"), (ACTION, 1, "look"), (OBSERVATION, 2, "a wall"),
    ]  # fmt: skip


def test_adp():
    reading = Reading()
    assert units(read(logs.adp(), reading=reading)) == [
        (GOAL, 0, "Buy tea."),
        (OBSERVATION, 0, "http://shop/\n[1] button 'Tea'"),
        (THOUGHT, 0, "The button."),
        (ACTION, 0, '{"name":"click","arguments":{"bid":"1"}}'),
        (TOOL, 0, "In the basket."),
        (ACTION, 1, "```python\npay(3)\n```"),
        (OBSERVATION, 2, "Out[1]: True"),
        (THOUGHT, 2, "All is done."),
        (ACTION, 2, "<finish> Bought. </finish>"),
    ]
    assert reading.counts["html_dropped"] == 1


def test_adp_of_eto_is_parsed_apart_too():
    content = [
        {"class_": "text_observation", "content": "Instructions.", "source": "user"},
        {"class_": "message_action", "content": "OK", "description": ""},
        {"class_": "text_observation", "content": "Observation: a door.", "source": "user"},
        {"class_": "message_action", "content": "<finish> Thought: Out.\nAction: open </finish>", "description": ""},
    ]
    trajectory = read({"id": "x", "content": content})
    assert units(trajectory)[2:] == [
        (OBSERVATION, 1, "a door."), (THOUGHT, 1, "Out."), (ACTION, 1, "<finish> open </finish>"),
    ]  # fmt: skip
    assert untrained(trajectory) == ["OK"]


def test_toolbench_records_of_one_episode_are_joined():
    records = logs.toolbench()
    read_all = [read(record) for record in records]
    assert [untrained(t) for t in read_all] == [
        [], ["try 1", *[units(read_all[0])[3][2]]], [u.text for u in read_all[1].units if u.kind in (THOUGHT, ACTION)],
    ]  # fmt: skip
    other = read(logs.toolbench(2, "Find a film.")[0])
    for order in ([2, 0, 1], [0, 1, 2]):
        whole, alone = sorted(toolbench.join([read_all[i] for i in order] + [other]), key=lambda t: -len(t.units))
        assert units(whole) == units(read_all[2]) and units(alone) == units(other)
        assert untrained(whole) == [] and whole.outcome["num_steps"] == 3
        assert whole.source["records"] == 3 and whole.source["counts"] == {"truncated_observations": 1}
    assert [kind for kind, *_ in units(whole)] == [SYSTEM, GOAL, *[THOUGHT, ACTION, TOOL] * 2, THOUGHT, ACTION]
    assert units(whole)[3] == (ACTION, 0, '{"name":"get_for_songs","arguments":{"page":1}}')
    missing = toolbench.join([read_all[0], read_all[2]])  # a step without its record is context
    assert untrained(missing[0]) == [units(read_all[1])[i][2] for i in (5, 6)]


def test_toolbench_answer_trees():
    expected = [
        (SYSTEM, 0, '[{"name":"get_y"}]'), (GOAL, 0, "Which n?"), (ACTION, 0, '{"name":"get_y","arguments":{"n":1}}'),
        (TOOL, 0, "7"), (THOUGHT, 1, "so 7"),
        (ACTION, 1, '{"name":"Finish","arguments":{"return_type":"give_answer","final_answer":"7"}}'),
    ]  # fmt: skip
    record = logs.answer_tree()
    trajectory = read(record)
    assert units(trajectory) == expected and trajectory.outcome == {"success": True, "num_steps": 2}
    first = [
        {"role": "user", "content": "Which n?"},
        {"role": "assistant", "content": "", "function_call": {"name": "get_y", "arguments": '{"n": 1}'}},
    ]
    finish = {"name": "Finish", "arguments": '{"return_type": "give_answer", "final_answer": "7"}'}
    last = [
        *first, {"role": "function", "name": "get_y", "content": "7"},
        {"role": "assistant", "content": "<think>so 7</think>", "function_call": finish},
    ]  # fmt: skip
    record["answer_generation"]["train_messages"] = [first, last]
    assert units(read(record)) == expected and untrained(read(record)) == []
    record["answer_generation"]["train_messages"] = [last]
    assert untrained(read(record)) == [expected[2][2]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x" * 1024 + "...", True), ("word " * 301, False), ("x" * 2048, True), ("x" * 1030, False),
        ('{"a": [' + '{"b": 1}, ' * 60 + '{"b": ', True), (json.dumps({"a": ["b"] * 200}), False),
        ('{"error": "", "response": "' + "a" * 1024 + '..."}', True), ("short...", False),
        ("text\n<response clipped><NOTE>Observations should not exceed 10 characters.</NOTE>", True),
        ("see the truncated table" + "." * 400, False), ("log " * 90 + "\n[Output Truncated]\n2 steps left.", True),
        ("The end of the story..." + "\n" * 300, False),
    ],
)  # fmt: skip
def test_cut_observations_are_told_from_whole_ones(text, expected):
    assert is_cut(text) is expected


@pytest.mark.parametrize(
    ("record", "name"),
    [
        (logs.shop(), "messages"), (logs.shell(), "messages"), (logs.maze(), "sharegpt"),
        (logs.functions(), "sharegpt"), (logs.atif(), "atif"), (logs.adp(), "adp"),
        (logs.toolbench()[0], "toolbench"), (logs.answer_tree(), "toolbench"),
        ({"conversations": logs.shell()}, "messages"), ({"messages": json.dumps(logs.shell())}, "messages"),
        ({"trajectory": [{"action": "ls"}], "history": logs.shell()}, "messages"),
    ],
)  # fmt: skip
def test_formats_are_recognised(record, name):
    found, why = registry.detect(record)
    assert found == name and why
    assert read(record).source["format"] == name


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "a", "answer": "b"}, r"not recognised: an object with 'prompt', 'answer'. Expected 'messages'"),
        (3, "not recognised: 3"),
        ({"messages": []}, "not recognised: an object with 'messages'"),
        (messages(("user", "a")), "the agent has no turn"),
        (messages(("narrator", "a"), ("assistant", "b")), "a turn has the role 'narrator'; expected one of system"),
        (messages(("user", b"3"), ("assistant", "b")), "content: expected null, text or a list of parts, got b'3'"),
        (messages(("user", [{"type": "hologram"}]), ("assistant", "b")), "a content part has the type 'hologram'"),
        (messages(("user", [{"type": "text"}]), ("assistant", "b")), "of type 'text': expected text, got None"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "x"}]}]}, "a tool call has no name"),
        ({"messages": [{"role": "assistant", "tool_calls": "f()"}]}, "tool_calls: expected a list, got 'f"),
        ({"schema_version": "ATIF-v1.8", "steps": [{"source": "robot"}]}, r"steps\[0\]: expected an object"),
        ({"schema_version": "ATIF-v1.8", "steps": []}, "expected an object with 'steps'"),
        ({"content": [{"class_": "dance"}]}, r"content\[0\].class_: expected one of text_observation"),
        ({"answer_generation": {}}, "neither train_messages nor a tree"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told(record, message):
    with pytest.raises(ValueError, match=message):
        registry.read(record, "auto")


def test_a_format_that_is_told_is_not_guessed():
    with pytest.raises(ValueError, match=r"expected 'conversations', a list of objects with from and value, got \{"):
        registry.read(logs.shop(), "sharegpt")


_texts = st.text(st.characters(exclude_categories=()), max_size=12)
_turns = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", "function", "environment"])},
        optional={
            "content": st.one_of(st.none(), _texts, st.lists(_texts.map(lambda text: {"type": "text", "text": text}))),
            "tool_calls": st.lists(
                st.fixed_dictionaries(
                    {"function": st.fixed_dictionaries({"name": st.sampled_from("fg"), "arguments": _texts})},
                    optional={"id": st.sampled_from("abc")},
                ),
                max_size=3,
            ),
            "tool_call_id": st.sampled_from("abc"),
            "reasoning_content": _texts,
            "loss": st.booleans(),
        },
    ),
    max_size=12,
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(_turns)
def test_any_messages_round_trip_with_steps_in_order(turns):
    """Steps never go back, every turn of the agent has one of its own, and nothing that was said is lost."""
    record = {"messages": [{"role": "user", "content": "go"}, *turns, {"role": "assistant", "content": "end"}]}
    reading = Reading()
    trajectory = read(record, reading=reading)
    steps = [unit.step for unit in trajectory.units]
    acting = {unit.step for unit in trajectory.units if unit.kind in (THOUGHT, ACTION)}
    assert steps == sorted(steps) and acting == set(range(trajectory.outcome["num_steps"]))
    for earlier, later in zip(trajectory.units, trajectory.units[1:], strict=False):
        if later.kind in (GOAL, USER, OBSERVATION) and earlier.kind in (ACTION, THOUGHT, TOOL):
            assert later.step == earlier.step + 1 or (earlier.kind == TOOL and later.step == earlier.step)
    num_calls = sum(len(t.get("tool_calls", ())) for t in turns if t["role"] == "assistant")
    assert sum((unit.text or "").startswith('{"name":') for unit in trajectory.units) >= num_calls


def _places(value, path=()):
    """The paths of everything inside a JSON value."""
    yield path
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _places(child, (*path, key))


_RECORDS = (
    logs.shop(task_id="t", score=1), logs.shell(), logs.maze(), logs.functions(), logs.atif(), logs.adp(),
    *logs.toolbench(2), logs.answer_tree(),
)  # fmt: skip
_JUNK = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), _texts),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["type", "text", "role", "name", "content", "value", "id"]), inner, max_size=3),
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(_RECORDS), st.lists(st.tuples(st.integers(0, 10**6), _JUNK), min_size=1, max_size=2), st.booleans()
)
def test_any_damage_is_read_or_refused(record, damages, drop_images):
    """Something else in any place of a record: a trajectory that can be written, or a sentence; no other error."""
    record = copy.deepcopy(record)
    for place, junk in damages:
        paths = list(_places(record))
        path = paths[place % len(paths)]
        if not path:
            record = junk
            break
        parent = record
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = copy.deepcopy(junk)
    for name in ("auto", *registry.FORMATS):
        try:
            trajectory = registry.read(record, name, reading=Reading(drop_images))
        except ValueError as error:
            assert len(str(error)) < 500
        else:
            sources.record_to_trajectory(json.loads(sources.encode(trajectory)))
