"""ToolBench: experts solve all queries and no call can be left out, splits are kept apart, names can be disturbed."""

import json
from pathlib import Path

import pytest

from anyorder_jax.environments import calls, registry
from anyorder_jax.environments.base import ExpertError, take
from anyorder_jax.environments.toolbench import apis, data, names, sample, simulator
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


def text_of(name, /, **arguments):
    return json.dumps({"name": name, "arguments": arguments})


@pytest.mark.parametrize("world", [WORLDS[2] + options for options in (
    "", "-schemas", "+names=edited", "+names=reversed+parameters=reversed", "+names=swapped+parameters=swapped",
    "-schemas+names=numbered+parameters=edited", "+errors=0.3", "+cut=60",
)] + list(WORLDS))  # fmt: skip
def test_the_expert_solves_every_query_and_no_call_can_be_left_out(world):
    session = registry.make_session(world)
    tasks = registry.tasks(world)["test"]
    assert len(tasks) == 8
    for task in tasks:
        session.reset(task)
        path = list(session.path())
        steps = played(session, task, path)
        assert steps[-1].is_success and steps[-1].is_done and steps[-1].reward == 1.0
        assert not any(step.is_invalid or step.is_done for step in steps[:-1])
        if "errors" not in world:
            for place in range(len(path)):
                without = played(session, task, path[:place] + path[place + 1 :])
                assert not any(step.is_success for step in without), (task, place)


def test_splits_are_kept_apart(root):
    every = {world: registry.tasks(world) for world in WORLDS}
    tests = [task for found in every.values() for task in found["test"]]
    assert len(set(tests)) == len(tests) == 48
    words = [data.instruction(root, task)["query"] for task in tests]
    for world, found in every.items():
        assert found == registry.tasks(f"{world}-schemas") == registry.tasks(f"{world}+errors=0.1")
        assert found["train"] and found["validation"] and not {*found["train"]} & {*found["validation"]}
        used, held = (
            [api for task in tasks for api in data.instruction(root, task)["api_list"]]
            for tasks in (found["train"] + found["validation"], found["test"])
        )
        assert not {data.instruction(root, task)["query"] for task in found["train"]} & {*words}
        for kind, key in (("tool", "tool_name"), ("category", "category_name")):
            if world.endswith(kind):
                assert not {api[key] for api in used} & {api[key] for api in held}


def test_what_a_test_holds_out_leaves_training(root, tmp_path, monkeypatch):
    queries = json.loads((root / "instruction" / "G1_query.json").read_text(encoding="utf-8"))
    held = json.loads((root / "test_instruction" / "G1_tool.json").read_text(encoding="utf-8"))
    same_words = {**queries[0], "query": f"  {held[0]['query'].upper()} "}
    same_id = {**queries[1], "query_id": held[1]["query_id"]}
    same_tool = {**queries[2], "api_list": held[2]["api_list"]}
    for folder, name, content in (
        ("test_instruction", "G1_tool", held),
        ("instruction", "G1_query", [same_words, same_id, same_tool, queries[3]]),
    ):  # fmt: skip
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "test_query_ids").mkdir()
    chosen = {str(held[n]["query_id"]): n for n in (0, 1, 2, 3)}
    (tmp_path / "test_query_ids" / "G1_tool.json").write_text(json.dumps(chosen), encoding="utf-8")
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    found = registry.tasks("ToolBench-G1-tool")
    assert found["test"] == [f"G1_tool/{number}" for number in chosen]
    assert found["train"] + found["validation"] == [f"G1/{queries[3]['query_id']}"]
    both = registry.tasks("ToolBench-G1-instruction")  # no test of its own here; the tool may be used
    assert {f"G1/{q['query_id']}" for q in queries[2:4]} == {*both["train"], *both["validation"]}
    assert registry.tasks("ToolBench-G2-category") == {"train": [], "validation": [], "test": []}


def test_apis_are_documented_by_their_tools_files(root, tmp_path, monkeypatch):
    query = json.loads((root / "test_instruction" / "G2_category.json").read_text(encoding="utf-8"))[0]
    lacking = [
        {k: v for k, v in api.items() if "parameters" not in k and k != "template_response"}
        for api in query["api_list"]
    ]
    for api in query["api_list"]:
        api["template_response"] = {"only": "int"}
        for folder, key, content in (
            ("tools", "required_parameters", api["required_parameters"]),
            ("response_examples", "schema", api["template_response"]),
        ):
            place = api["category_name"], api["tool_name"].lower().replace(" ", "_")
            path = tmp_path / "toolenv" / folder / place[0] / f"{place[1]}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            there = json.loads(path.read_text(encoding="utf-8"))["api_list"] if path.exists() else []
            written = {"name": api["api_name"], "optional_parameters": api["optional_parameters"], key: content}
            path.write_text(json.dumps({"api_list": [*there, written]}), encoding="utf-8")
    (tmp_path / "test_instruction").mkdir()
    path = tmp_path / "test_instruction" / "G2_category.json"
    path.write_text(json.dumps([{**query, "api_list": lacking}], ensure_ascii=False), encoding="utf-8")
    found = data.instruction(tmp_path, f"G2_category/{query['query_id']}")
    assert found["api_list"] == query["api_list"]


def test_names_and_types_are_toolbenchs():
    assert names.of_function("Olato Quotes", "Love Quote") == "love_quote_for_olato_quotes"
    assert names.of_function("transitaires", "/transitaire/{id}") == "transitaire_id_for_transitaires"
    assert names.of_function("x" * 70, "a").endswith("x" * 64) and len(names.of_function("x" * 70, "a")) == 64
    assert [names.standard(n) for n in ("id", "from", "2nd Place!", "__Country--Code")] == [
        "is_id", "is_from", "get_2nd_place", "country_code",
    ]  # fmt: skip
    api = {
        "tool_name": "T", "api_name": "A", "category_name": "C", "api_description": " x\n y ",
        "required_parameters": [
            {"name": "id", "type": "NUMBER", "default": "7"},
            {"name": "day", "type": "DATE (YYYY-MM-DD)", "default": "soon"},
            {"name": "ID", "type": "ENUM", "default": ""},
        ],
        "optional_parameters": [
            {"name": "is it", "type": "BOOLEAN", "default": "True"}, {"name": "at", "type": "TIME (24-hour HH:MM)"},
            {"name": "list", "type": "ARRAY", "default": "[1]"}, {"name": "odd", "type": "GEO", "default": 5},
        ],
    }  # fmt: skip
    (found,) = apis.of_task({"api_list": [api, api]})
    assert found.function.signature() == (
        "a_for_t(is_id: float = 7, day: date, is_id_2: string, is_it?: boolean = true, at?: time, list?: array = [1], "
        "odd?: any = 5)"
    )
    assert found.given["is_id_2"] == "ID" and found.function.document["description"] == "x y"
    good = {"is_id": 1.5, "day": "2024-02-03", "is_id_2": "x"}
    calls.check(found.function, good)
    for wrong in ({"is_id": "1"}, {"is_id": True}, {"day": "3 May"}, {"at": "9:30"}, {"is_it": "yes"}, {"more": 1}):
        with pytest.raises(ValueError):
            calls.check(found.function, good | wrong)


def test_answers_have_the_types_of_their_schema_and_are_each_calls_own():
    schema = {
        "a": "str", "b": "int", "c": "float", "d": "bool", "e": "NoneType", "f": "empty list",
        "g": "list of str with length 2", "h": [{"i": "int"}, {"_list_length": 9}], "_list_length": 3,
    }  # fmt: skip
    found = simulator.answer("G1/1", "api", {"x": 1, "y": 2}, schema)
    kinds = {key: type(value) for key, value in found.items()}
    assert kinds == {"a": str, "b": int, "c": float, "d": bool, "e": type(None), "f": list, "g": list, "h": list}
    assert len(found["g"]) == 2 and len(found["h"]) == 1 and type(found["h"][0]["i"]) is int
    assert found == simulator.answer("G1/1", "api", {"y": 2, "x": 1}, schema)
    others = [("G1/2", "api", {"x": 1, "y": 2}), ("G1/1", "b", {"x": 1, "y": 2}), ("G1/1", "api", {"x": 1})]
    for other in others:
        assert not {*simulator.quotable(found)} & {*simulator.quotable(simulator.answer(*other, schema))}
    for odd in ("", None, '{"cut": {"off', 3, {}):
        assert simulator.quotable(simulator.answer("G1/1", "api", {}, odd))
    assert simulator.quotable({"a": True, "b": 7, "c": None}) == []
    assert simulator.is_quoted("12.5", "It is 12.5.") and not simulator.is_quoted("12.5", "It is 112.55.")


def test_an_answer_has_to_quote_what_was_told_and_finish():
    session = registry.make_session(WORLDS[0])
    task = next(t for t in registry.tasks(WORLDS[0])["test"] if len(session.reset(t)) and len(session.path()) > 2)
    session.reset(task)
    *path, last = session.path()
    answer = json.loads(last)["arguments"]["final_answer"]
    for wrong in (
        text_of("Finish", return_type="give_up_and_restart", final_answer=answer),
        text_of("Finish", return_type="give_answer"),
        text_of("Finish", return_type="give_answer", final_answer=answer.split(",")[0]),
    ):  # fmt: skip
        done = played(session, task, [*path, wrong])[-1]
        assert done.is_done and not done.is_success and done.reward == 0
    assert played(session, task, [*path[::-1], last])[-1].is_success  # in any order
    told = played(
        session, task, [text_of("Finish", return_type="done"), text_of("nothing"), "Finish", path[0], path[0]]
    )
    assert [step.is_invalid for step in told] == [True, True, True, False, False]
    assert told[3].units[0].text == told[4].units[0].text
    session.reset(task)
    take(session, Unit(Kind.ACTION, 0, text=path[1]))
    with pytest.raises(ExpertError, match="path was left"):
        session.advice()


def test_disturbed_names_are_other_names_of_the_same_functions():
    (system, _) = registry.make_session(WORLDS[0]).reset("G1_instruction/1")
    known = [line.partition("(")[0] for line in system.text.splitlines()]
    for edit in names.EDITS:
        session = registry.make_session(f"{WORLDS[0]}+names={edit}")
        (shown, _) = session.reset("G1_instruction/1")
        other = [line.partition("(")[0] for line in shown.text.splitlines()]
        assert other[-1] == known[-1] == "Finish" and len(set(other)) == len(known)
        assert all(a != b for a, b in zip(other[:-1], known[:-1], strict=True))
        assert (sorted(other) == sorted(known)) is (edit == "swapped")
        assert shown == registry.make_session(f"{WORLDS[0]}+names={edit}").reset("G1_instruction/1")[0]
        if edit == "reversed":
            assert other[0] == known[0][::-1]
    described = registry.make_session(f"{WORLDS[0]}-schemas+parameters=numbered").reset("G1_instruction/1")[0].text
    schema = json.loads(described.splitlines()[1])["parameters"]
    assert set(schema["properties"]) == {"parameter_1", "parameter_2"} == set(schema["required"])


def test_bad_options_and_missing_data_are_told(monkeypatch, tmp_path):
    for wrong, told in (
        ("+name=edited", "option 'name' is unknown. Did you mean names"), ("+names=odd", r"names=edited\|reversed"),
        ("+errors=2", "errors=0..0.9, got '2'"), ("+cut=60+cut=60", "stands twice"), ("+", "option '' is unknown"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=told):
            registry.make_session(WORLDS[0] + wrong)
    with pytest.raises(ValueError, match="Options of TextWorldExpress-TWC: none"):
        registry.tasks("TextWorldExpress-TWC+cut=60")
    for wrong in ("G1_tool/999", "G2/1", "7", ""):
        with pytest.raises(ValueError, match="expected a task like"):
            registry.make_session("ToolBench-G1-tool").reset(wrong)
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    with pytest.raises(RuntimeError, match="has no folder test_instruction"):
        registry.tasks(WORLDS[0])
    monkeypatch.delenv(data.VARIABLE)
    with pytest.raises(RuntimeError, match="it is not set"):
        registry.make_session(WORLDS[0])
    assert registry.make_codec(WORLDS[0], "joint").is_running_text  # training needs no data
    (tmp_path / "test_instruction").mkdir()
    (tmp_path / "test_instruction" / "G1_tool.json").write_text('[{"query": "x"', encoding="utf-8")
    monkeypatch.setenv(data.VARIABLE, str(tmp_path))
    with pytest.raises(ValueError, match=r"G1_tool.json, byte 1: expected an instruction"):
        registry.tasks("ToolBench-G1-tool")
