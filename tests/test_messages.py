"""Chat logs (messages, ShareGPT and its kin) become the units that docs/own_data.md promises."""

import json

import pytest

import logs
from anyorder_jax.formats import registry
from anyorder_jax.formats.parts import Reading
from anyorder_jax.types import Kind
from logs import messages, read, units, untrained

SYSTEM, GOAL, USER, OBSERVATION = Kind.SYSTEM, Kind.GOAL, Kind.USER, Kind.OBSERVATION
THOUGHT, ACTION, TOOL = Kind.THOUGHT, Kind.ACTION, Kind.TOOL


def test_messages_with_calls():
    trajectory = read(logs.shop(id=7, task_id="tea", reward=1))
    assert units(trajectory) == [
        (SYSTEM, 0, "You sell things."),
        (SYSTEM, 0, json.dumps(logs.TOOLS, separators=(",", ":"))),
        (GOAL, 0, "What does tea cost?"),
        (THOUGHT, 0, "Look it up, and the stock."),
        (ACTION, 0, '{"name":"price","arguments":{"item":"tea"}}'),
        (ACTION, 0, '{"name":"stock","arguments":{"item":"tea","shop":1.5}}'),
        (TOOL, 0, "3 euros"),
        (TOOL, 0, "12 left"),
        (ACTION, 1, "Tea costs 3 euros."),
        (USER, 2, "And <|mask|> coffee?"),
        (THOUGHT, 2, "Not sold."),
        (ACTION, 2, "We have none."),
    ]
    assert trajectory.id == "7" and trajectory.outcome == {"return": 1.0, "num_steps": 3}
    assert trajectory.source["task"] == "tea" and trajectory.source["line"] == 3


def test_a_task_without_an_id_is_its_goal_text():
    one, same, other = (read(logs.shop(goal, id=i)) for i, goal in enumerate(["Buy  tea.", "buy tea. ", "Buy rice."]))
    assert one.source["task"] == same.source["task"] != other.source["task"]
    assert one.id != same.id


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": 1', '"{\\"a\\": 1"'), ("", '""'), ("null", "{}"), ("[1, 2]", "[1,2]"),
        ('{"b":1,"a":"é"}', '{"b":1,"a":"é"}'),
        ('{"a": NaN}', '"{\\"a\\": NaN}"'), ({"a": 1}, '{"a":1}'), ("[" * 10**5, None), (None, "{}"),
    ],
)  # fmt: skip
def test_arguments_that_are_no_json_stay_text(arguments, expected):
    record = messages(("user", "go"))
    call = {"id": "x", "function": {"name": "f", "arguments": arguments}}
    record["messages"].append({"role": "assistant", "content": "", "tool_calls": [call]})
    reading = Reading()
    text = read(record, reading=reading).units[-1].text
    assert text == f'{{"name":"f","arguments":{json.dumps(arguments) if expected is None else expected}}}'
    is_invalid = isinstance(arguments, str) and json.loads(text)["arguments"] == arguments
    assert reading.counts["invalid_arguments"] == is_invalid


def test_results_missing_doubled_late_and_of_nothing():
    record = messages(("user", "go"))
    record["messages"] += [
        {"role": "assistant", "content": "", "tool_calls": [logs.called(1), logs.called(2), logs.called(3)]},
        {"role": "tool", "tool_call_id": "call_3", "content": "third"},
        {"role": "tool", "tool_call_id": "call_9", "content": "of nothing"},
        {"role": "tool", "tool_call_id": "call_1", "content": "first"},
        {"role": "tool", "tool_call_id": "call_1", "content": "first, more"},
        {"role": "user", "content": "hurry"},
        {"role": "tool", "tool_call_id": "call_2", "content": "late"},
        {"role": "assistant", "content": "done"},
    ]
    reading = Reading()
    assert units(read(record, reading=reading))[4:] == [
        (TOOL, 0, "first"), (TOOL, 0, "first, more"), (TOOL, 0, "third"), (TOOL, 0, "of nothing"), (USER, 1, "hurry"),
        (TOOL, 1, "late"), (ACTION, 1, "done"),
    ]  # fmt: skip
    assert reading.counts == {"unmatched_results": 1, "late_results": 1, "untrained_turns": 0}


def test_results_without_ids_go_by_name_then_by_order():
    record = messages(("user", "go"))
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in ("f", "g", "g")]
    record["messages"] += [
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "name": "g", "content": "g one"},
        {"role": "tool", "content": "unnamed"},
        {"role": "tool", "tool_call_id": "unknown", "name": "g", "content": "g two"},
        {"role": "assistant", "function_call": {"name": "old", "arguments": "{}"}, "content": None},
        {"role": "function", "name": "old", "content": "old result"},
        {"role": "assistant", "content": "end"},
    ]
    assert [text for kind, _, text in units(read(record)) if kind == TOOL] == [
        "unnamed", "g one", "g two", "old result",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "content",
    [
        # LLaMA-Factory, Vercel, Anthropic and plain-text tags write the same turn
        [{"type": "reasoning", "value": "hm"}, {"type": "text", "value": "say"},
         {"type": "tool_call", "value": '{"name": "f", "arguments": {"x": 1}}'}],
        [{"type": "reasoning", "text": "hm"}, {"type": "text", "text": "say"},
         {"type": "tool-call", "toolCallId": "1", "toolName": "f", "input": {"x": 1}}],
        [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "say"},
         {"type": "tool_use", "id": "1", "name": "f", "input": {"x": 1}}],
        '<think>hm</think>say\n<tool_call>\n{"name": "f", "arguments": {"x": 1}}\n</tool_call>',
        'hm\n</think>\n\nsay<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>',
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "result",
    [
        {"role": "tool", "content": [{"type": "text", "value": '[{"name": "f", "content": "ok"}]'}]},
        {"role": "tool", "content": [{"type": "tool-result", "toolCallId": "1", "toolName": "f",
                                      "output": {"type": "text", "value": "ok"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1",
                                      "content": [{"type": "text", "text": "ok"}]}]},
        {"role": "user", "content": "<tool_response>\nok\n</tool_response>"},
    ],
)  # fmt: skip
def test_typed_parts(content, result):
    record = messages(("user", [{"type": "text", "text": "go"}]), ("assistant", content))
    record["messages"] += [result, {"role": "assistant", "content": "bye"}]
    assert units(read(record)) == [
        (GOAL, 0, "go"), (THOUGHT, 0, "hm"), (ACTION, 0, "say"), (ACTION, 0, '{"name":"f","arguments":{"x":1}}'),
        (TOOL, 0, "ok"), (ACTION, 1, "bye"),
    ]  # fmt: skip


def test_parallel_results_in_one_row_are_told_apart_and_lists_are_not():
    record = messages(("user", "go"))
    pieces = [{"name": "b", "content": {"n": 2}}, {"name": "a", "content": "1"}]
    calls = [{"function": {"name": name, "arguments": {}}} for name in "ab"]
    files = '[{"name": "notes.txt", "content": "x"}, {"name": "b", "content": "y"}]'
    record["messages"] += [
        {"role": "assistant", "tool_calls": calls},
        {"role": "tool", "content": json.dumps(pieces)},
        {"role": "assistant", "tool_calls": [logs.called(5, "ls", "{}")]},
        {"role": "tool", "tool_call_id": "call_5", "content": files},
        {"role": "assistant", "tool_calls": [{"function": {"name": "ls", "arguments": {}}}]},
        {"role": "tool", "content": files},
    ]
    assert [text for kind, _, text in units(read(record)) if kind == TOOL] == ["1", '{"n":2}', files, files]


def test_images_are_refused_or_dropped_and_counted():
    picture = {"type": "image_url", "image_url": {"url": "http://x/1.png"}}
    typed = messages(("user", [picture, {"type": "text", "text": "what?"}]), ("assistant", "a cat"))
    listed = messages(("user", "<image>what?"), ("assistant", "a cat"), images=["1.png"])
    for record in (typed, listed):
        with pytest.raises(ValueError, match=r"it holds an image.*--drop_images"):
            registry.read(record, "auto")
        reading = Reading(drop_images=True)
        assert units(read(record, reading=reading)) == [(GOAL, 0, "what?"), (ACTION, 0, "a cat")]
        assert reading.counts["images"] == 1
    text = messages(("user", "<image> is a tag"), ("assistant", "yes"))
    assert units(read(text))[0] == (GOAL, 0, "<image> is a tag")
    with pytest.raises(ValueError, match="videos"):
        registry.read(messages(("user", "x"), ("assistant", "y"), videos=["v.mp4"]), "auto")


def test_what_is_dropped_and_kept():
    record = messages(
        ("developer", "Be brief."), ("user", "hi"), ("user", "there"), ("assistant", "  "), ("system", "Be brief."),
        ("assistant", "yes"), ("assistant", "and no"), ("system", "Now be long."), ("user", ""), ("user", "more"),
        ("assistant", "\ud800 <|im_end|>"),
    )  # fmt: skip
    reading = Reading()
    trajectory = read(record, reading=reading)
    assert units(trajectory) == [
        (SYSTEM, 0, "Be brief."), (GOAL, 0, "hi"), (USER, 0, "there"), (ACTION, 0, "yes"), (ACTION, 1, "and no"),
        (SYSTEM, 2, "Now be long."), (USER, 2, "more"), (ACTION, 2, "\ufffd <|im_end|>"),
    ]  # fmt: skip
    counts = {"empty_turns": 2, "repeated_system": 1, "broken_characters": 1}
    assert trajectory.source["counts"] == counts


@pytest.mark.parametrize("mark", [{"weight": 0}, {"loss": False}, {"train": False}, {"is_demo": True}])
def test_turns_that_are_no_targets(mark):
    record = messages(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    record["messages"][1].update(mark)
    assert untrained(read(record)) == ["b"]
    record["messages"][1].update({key: 1 - value if type(value) is int else not value for key, value in mark.items()})
    assert untrained(read(record)) == []


def test_fenced_commands_are_actions_and_their_output_observations():
    trajectory = read(logs.shell())
    assert units(trajectory)[1:] == [
        (GOAL, 0, "Please fix the file."),
        (THOUGHT, 0, "Look first."), (ACTION, 0, "```bash\ncat a.py\n```"), (OBSERVATION, 1, "x = \n"),
        (THOUGHT, 1, "Write it."), (ACTION, 1, "```bash\ncat > a.md <<'EOF'\n```\ncode\n```\nEOF\n```"),
        (OBSERVATION, 2, "(no output)"), (ACTION, 2, "It is fixed."),
    ]  # fmt: skip


def test_a_chat_about_code_stays_a_chat():
    record = messages(
        ("user", "How do I sort?"), ("assistant", "So:\n```python\nsorted(x)\n```"), ("user", "And down?"),
        ("assistant", "So:\n```python\nsorted(x)[::-1]\n```"),
    )  # fmt: skip
    assert [kind for kind, *_ in units(read(record))] == [GOAL, ACTION, USER, ACTION]


def test_eto_conversations():
    trajectory = read(logs.maze())
    assert units(trajectory) == [
        (GOAL, 0, "You are in a maze. Answer with Thought and Action."),
        (ACTION, 0, "OK"),
        (OBSERVATION, 1, "a fork, and a sign: room 1."),
        (THOUGHT, 1, "The sign points left.\nI go there."),
        (ACTION, 1, "go left"),
        (OBSERVATION, 2, "a door."),
        (THOUGHT, 2, "Open it."),
        (ACTION, 2, "open door"),
        (OBSERVATION, 3, "outside."),
        (THOUGHT, 3, "Done."),
        (ACTION, 3, "stop"),
    ]
    assert untrained(trajectory) == ["OK", "Open it.", "open door"]
    # the instruction is the same in all: what comes next tells the task
    assert trajectory.source["task"] != read(logs.maze(2)).source["task"]


@pytest.mark.parametrize("labels", [("THOUGHT", "ACTION"), ("Think", "Act"), ("Thought", "Action")])
def test_other_labels_and_marks_of_agentgym(labels):
    think, act = labels
    record = logs.maze()
    record["item_id"] = record.pop("id")
    for turn in record["conversations"]:
        turn["value"] = turn["value"].replace("Thought:", f"{think}:\n").replace("Action:", f"\n{act}:\n")
    record["conversations"][1]["value"] = "OK. I'll follow your instructions and try my best to solve the task."
    trajectory = read(record)
    assert [u for u in units(trajectory) if u[1]] == [u for u in units(read(logs.maze())) if u[1]]
    assert trajectory.id == "maze_1" and not trajectory.units[1].is_expert


def test_an_action_with_input_is_a_call_and_a_final_answer_an_action():
    record = messages(
        ("user", "How many?"), ("assistant", 'Thought: ask\nAction: count\nAction Input: {"of": "tea"}'),
        ("user", "Observation: 3"), ("assistant", "Thought: I know.\nFinal Answer: 3"),
        system=[{"type": "text", "text": "S"}],
    )  # fmt: skip
    assert units(read(record)) == [
        (SYSTEM, 0, "S"), (GOAL, 0, "How many?"), (THOUGHT, 0, "ask"),
        (ACTION, 0, '{"name":"count","arguments":{"of":"tea"}}'), (TOOL, 0, "3"), (THOUGHT, 1, "I know."),
        (ACTION, 1, "Final Answer: 3"),
    ]  # fmt: skip


def test_sharegpt_with_functions():
    record = logs.functions()
    assert units(read(record)) == [
        (SYSTEM, 0, '[{"name":"weather"}]'),
        (GOAL, 0, "Is it warm in Rome?"),
        (ACTION, 0, '{"name":"weather","arguments":{"city":"Rome"}}'),
        (TOOL, 0, '{"degrees": 31}'),
        (ACTION, 1, "Yes, 31 degrees."),
    ]
    record["conversations"][1]["value"] = '[{"name": "a", "arguments": {}}, {"name": "b", "arguments": "{}"}]'
    assert [text for _, step, text in units(read(record)) if step == 0][2:4] == [
        '{"name":"a","arguments":{}}', '{"name":"b","arguments":{}}',
    ]  # fmt: skip
    record["conversations"][1]["value"] = "weather(Rome)"
    reading = Reading()
    assert units(read(record, reading=reading))[2:4] == [(ACTION, 0, "weather(Rome)"), (TOOL, 0, '{"degrees": 31}')]
    assert reading.counts["invalid_calls"] == 1
