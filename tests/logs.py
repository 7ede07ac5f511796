"""Small logs of every format, written for the tests: a shop, a maze and a shell agent; and how to read them."""

import copy
import json

from anyorder_jax.data import sources
from anyorder_jax.formats import registry

TOOLS = [{"type": "function", "function": {"name": "price", "parameters": {"type": "object", "properties": {}}}}]


def called(number, name="price", arguments='{"item": "tea"}'):
    return {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": arguments}}


def shop(task="What does tea cost?", **fields):
    """OpenAI messages: two calls at once, their results in the other order, a second request."""
    messages = [
        {"role": "system", "content": "You sell things."},
        {"role": "user", "content": task},
        {
            "role": "assistant", "content": None, "reasoning_content": "Look it up, and the stock.",
            "tool_calls": [called(1), called(2, "stock", '{"item": "tea", "shop": 1.50}')],
        },
        {"role": "tool", "tool_call_id": "call_2", "content": "12 left"},
        {"role": "tool", "tool_call_id": "call_1", "content": "3 euros"},
        {"role": "assistant", "content": "Tea costs 3 euros."},
        {"role": "user", "content": "And <|mask|> coffee?"},
        {"role": "assistant", "content": "<think>\nNot sold.\n</think>\n\nWe have none."},
    ]  # fmt: skip
    return {"messages": messages, "tools": TOOLS, **fields}


def maze(number=1):
    """ETO's way: an instruction, "OK", then thoughts and actions; the last is marked as AgentGym would."""
    turns = [
        ("human", "You are in a maze. Answer with Thought and Action.", None),
        ("gpt", "OK", None),
        ("human", f"Observation: a fork, and a sign: room {number}.", None),
        ("gpt", "Thought: The sign points left.\nI go there.\nAction: go left", None),
        ("human", "Observation: a door.", None),
        ("gpt", "Thought: Open it.\nAction: open door", False),
        ("human", "Observation: outside.", None),
        ("gpt", "Thought: Done.\nAction: stop", True),
    ]
    logged = [{"from": who, "value": text, **({} if loss is None else {"loss": loss})} for who, text, loss in turns]
    return {"id": f"maze_{number}", "conversations": logged}


def functions():
    """ShareGPT with calls in turns of their own, as glaive's."""
    return {
        "conversations": [
            {"from": "human", "value": "Is it warm in Rome?"},
            {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'},
            {"from": "observation", "value": '{"degrees": 31}'},
            {"from": "gpt", "value": "Yes, 31 degrees."},
        ],
        "tools": '[{"name": "weather"}]',
    }


def shell():
    """Messages whose actions are fenced commands."""
    return [
        {"role": "system", "content": "Answer with one command in a fence:\n```bash\nls\n```"},
        {"role": "user", "content": "Please fix the file."},
        {"role": "assistant", "content": "THOUGHT: Look first.\n\n```bash\ncat a.py\n```"},
        {"role": "user", "content": "x = \n"},
        {"role": "assistant", "content": "Write it.\n\n```bash\ncat > a.md <<'EOF'\n```\ncode\n```\nEOF\n```"},
        {"role": "user", "content": "(no output)"},
        {"role": "assistant", "content": "It is fixed."},
    ]


def atif(version="ATIF-v1.8", **fields):
    """ATIF: an observation of the system, two calls of one step with one result missing, copied context."""
    return {
        "schema_version": version,
        "session_id": "s1",
        "agent": {"name": "a", "version": "1", "tool_definitions": TOOLS},
        "steps": [
            {"step_id": 1, "source": "system", "message": "You sell things."},
            {"step_id": 2, "source": "user", "message": "Two prices, please."},
            {
                "step_id": 3, "source": "system", "message": "",
                "observation": {"results": [{"content": "The shop is open."}]},
            },
            {
                "step_id": 4, "source": "agent", "message": "One moment.", "reasoning_content": "Ask for both.",
                "is_copied_context": True,
                "tool_calls": [
                    {"tool_call_id": "a", "function_name": "price", "arguments": {"item": "tea"}},
                    {"tool_call_id": "b", "function_name": "price", "arguments": {"item": "rice"}},
                ],
                "observation": {"results": [{"source_call_id": "b", "content": [{"type": "text", "text": "2"}]}]},
            },
            {"step_id": 5, "source": "agent", "message": "Rice costs 2."},
        ],
        "extra": {"success": True, "score": 0.5},
        **fields,
    }  # fmt: skip


def adp():
    """ADP: a page, an api action, code, and a message that ends."""
    return {
        "id": "adp-1",
        "content": [
            {"class_": "text_observation", "content": "Buy tea.", "source": "user"},
            {"class_": "web_observation", "url": "http://shop/", "axtree": "[1] button 'Tea'", "html": "<b>Tea</b>"},
            {"class_": "api_action", "function": "click", "kwargs": {"bid": "1"}, "description": "The button."},
            {"class_": "text_observation", "content": "In the basket.", "source": "environment"},
            {"class_": "code_action", "language": "python", "content": "pay(3)", "description": ""},
            {"class_": "text_observation", "content": "Out[1]: True", "source": "user"},
            {"class_": "message_action", "content": "<finish> Bought. </finish>", "description": "All is done."},
        ],
        "details": {},
    }


def toolbench(num_steps=3, query="Find a song."):
    """ToolBench's records of one episode: one for every step, each with all that came before."""
    turns = [
        {"from": "system", "value": "You are AutoGPT.\nSpecifically, you have access to the following APIs: []"},
        {"from": "user", "value": f"\n{query}\nBegin!\n"},
    ]
    records = []
    for step in range(1, num_steps + 1):
        value = f'\nThought: try {step}\nAction: get_for_songs\nAction Input: {{"page": {step}}}'
        turns = [*turns, {"from": "assistant", "value": value}]
        records.append({"id": f"Step {step}: {query}", "conversations": turns})
        cut = '{"error": "", "response": "' + ("song " * 205)[:1024] + '..."}'
        turns = [*turns, {"from": "function", "value": cut if step == 1 else '{"error": "", "response": "none"}'}]
    return records


def answer_tree():
    """A ToolBench answer without train_messages: a tree with a wrong branch."""

    def node(kind, text, *children, observation=""):
        return {"node_type": kind, "description": text, "observation": observation, "children": list(children)}

    wrong = node("Thought", "maybe", node("Action", "get_x", node("Action Input", "{}", observation="nothing")))
    finish = node("Action", "Finish", node("Action Input", '{"return_type": "give_answer", "final_answer": "7"}'))
    right = node("Action", "get_y", node("Action Input", '{"n": 1}', node("Thought", "so 7", finish), observation="7"))
    return {
        "win": True,
        "tree": {"tree": node("", "", wrong, right)},
        "answer_generation": {"query": "Which n?", "function": [{"name": "get_y"}], "train_messages": []},
    }


def read(record, name="auto", reading=None):
    """Reads, and checks what every trajectory promises."""
    before = copy.deepcopy(record)
    trajectory = registry.read(record, name, "log.jsonl", 3, reading)
    assert record == before
    assert sources.record_to_trajectory(json.loads(sources.encode(trajectory))) == trajectory
    assert trajectory.source["environment"] == "" and trajectory.source["file"] == "log.jsonl"
    return trajectory


def units(trajectory):
    return [(unit.kind, unit.step, unit.text) for unit in trajectory.units]


def untrained(trajectory):
    return [unit.text for unit in trajectory.units if not unit.is_expert]


def messages(*turns, **fields):
    return {"messages": [{"role": role, "content": content} for role, content in turns], **fields}
