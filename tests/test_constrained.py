"""Valid by construction: what the grammar lets through is what the worlds take, letter by letter, and a model that
knows nothing writes calls that can be done."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from anyorder_jax import collect, task
from anyorder_jax.acting import call_measures, evaluation, generator, names
from anyorder_jax.acting.choosing import CHOICES
from anyorder_jax.acting.episode import Episode
from anyorder_jax.acting.grammar import COMPACT, Grammar, State
from anyorder_jax.acting.rollout import play
from anyorder_jax.config import defaults, freeze
from anyorder_jax.data.chat_template import Calls
from anyorder_jax.environments import calls, registry
from anyorder_jax.environments.base import TextStep
from anyorder_jax.environments.calls import Call, Function, Parameter
from anyorder_jax.environments.server import Server
from anyorder_jax.environments.toolbench import data, sample
from anyorder_jax.model import transformer
from anyorder_jax.types import Kind, Unit
from runs import tiny_model

WORLD = "ToolBench-G2-category"
FUNCTIONS = [
    Function("pwd", "", (), {}),
    Function("pwd_all", "", (Parameter("deep", "boolean", False),), {}),
    Function(
        "every",
        "",
        (
            Parameter("text", "string", True), Parameter("te", "integer", True, most=1000),
            Parameter("f", "float", False),
            Parameter("list", "array", True, item_type="string"), Parameter("day", "date", False),
            Parameter("at", "time", False), Parameter("d", "dict", False), Parameter("x", "any", False),
            Parameter("how", "string", False, choices=("up", "down")), Parameter("many", "array", False),
            Parameter("n", "integer", False, is_text_too=True),
        ),
        {},
    ),
]  # fmt: skip
BY_NAME = {function.name: function for function in FUNCTIONS}
LETTERS = [*'{}[]":,.-0123456789 \\', *"abcdefghijklmnopqrstuvwxyz_é\n"]
GOOD = (
    Call("pwd", {}), Call("pwd_all", {}), Call("pwd_all", {"deep": True}),
    Call("every", {"text": 'a "b" \\ \n é', "te": -7, "list": []}),
    Call("every", {"list": ["a", ""], "te": 1000, "f": 0.25, "text": "", "day": "2024-02-29", "at": "09:30"}),
    Call("every", {"text": "x", "te": 0, "list": ["y"], "d": {"a": 1, "b": {"c": [True]}}, "x": [1, "a"]}),
    Call("every", {"how": "down", "text": "x", "te": 0, "list": ["y"]}),
    Call("every", {"text": "x", "te": 5, "list": [], "n": "ticket_001", "many": [1, False, {}], "f": -3, "d": {}}),
)  # fmt: skip


@pytest.mark.parametrize("how", [COMPACT, Calls("<tool>\n", "\n</tool>", (", ", ": "))])
def test_what_is_a_call_is_whole_and_what_begins_one_is_open(how):
    grammar = Grammar(FUNCTIONS, how)
    for call in GOOD:
        text = how.before + (how.write(call.json()) or "") + how.after
        assert calls.from_json(how.read(text), BY_NAME) == call
        assert grammar.state(text) is State.WHOLE
        for end in range(len(text)):
            assert grammar.state(text[:end]) is State.OPEN, text[:end]
        assert grammar.state(text + " ") is State.DEAD


@pytest.mark.parametrize("dead", [
    "x", "[", '{"name":"ls', '{"name":"pwd","arguments":{"', '{"name":"pwd_all","arguments":{"deep":1',
    '{"name":"pwd_all","arguments":{"deep":true,', '{"name":"every","arguments":{}', '{"name": "pwd"',
    *('{"name":"every","arguments":{' + arguments for arguments in (
        '"te":1001', '"te":1.', '"te":01', '"te":1,"te"', '"te":1}', '"day":"2024-1-', '"how":"l', '"d":{"a":1,"a"',
        '"list":[1', '"f":"', '"f":1e', '"x":[[[[[', '"x":n', '"text":"\\u', '"text":"\n',
    )),
])  # fmt: skip
def test_what_begins_no_call_is_dead(dead):
    grammar = Grammar(FUNCTIONS)
    assert grammar.state(dead) is State.DEAD
    assert grammar.state(dead[:-1]) is not State.WHOLE


def test_whatever_is_written_letter_by_letter_is_taken_and_comes_to_an_end():
    grammar = Grammar(FUNCTIONS)
    seen = set()
    for seed in range(60):
        rng, text, limit = np.random.default_rng(seed), "", 10**9
        while grammar.state(text, limit) is not State.WHOLE:
            may = [c for c in LETTERS if grammar.state(text + c, limit) is not State.DEAD]
            assert may, text
            text += may[int(rng.integers(len(may)))]
            if len(text) == 60 + seed:
                limit = len(text)
            assert len(text) < 400, text
        call = calls.from_json(text, BY_NAME)
        seen |= {call.name, *call.arguments}
    assert seen >= {"pwd", "pwd_all", "every", "text", "te", "list"} and len(seen) > 10


@pytest.mark.parametrize(("begun", "may_follow"), [
    ('"list":["a"', "]"), ('"list":[', "]"), ('"list":["a",', '"'), ('"text":"abc', '"'), ('"text":"', '"'),
    ('"te":12', ","), ('"te":-', "0123456789"), ('"te":', "-0123456789"), ('"f":1.', "0123456789"), ('"f":1.5', ","),
    ('"d":{"a":1', "}"), ('"d":{', "}"), ('"', "tl"), ('"te":1,"list":[],', '"'), ('"day":"2024-', "0123456789"),
    ('"text":"","te":1,"list":[]', "}"), ('"text":"","te":1,"list":[],"', "fdaxhmn"),  # a name was begun
])  # fmt: skip
def test_from_the_limit_on_only_what_must_be_may_follow(begun, may_follow):
    grammar, text = Grammar(FUNCTIONS), '{"name":"every","arguments":{' + begun
    found = {letter for letter in LETTERS if grammar.state(text + letter, len(text)) is not State.DEAD}
    assert found == {*may_follow}
    assert grammar.state(text, len(text)) is State.OPEN


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """(task, generator) of a model that knows nothing, on episodes of the sample."""
    patch = pytest.MonkeyPatch()
    sample.write(tmp_path_factory.getbasetemp() / "sample")
    patch.setenv(data.VARIABLE, str(tmp_path_factory.getbasetemp() / "sample"))
    patch.setattr(generator, "MAX_BLOCKS", 4)
    directory = collect.collect(
        collect.Collection(WORLD, num_episodes=12, num_workers=1, num_validation_episodes=2, num_test_episodes=2),
        tmp_path_factory.mktemp("collected"),
    )
    config = defaults()
    config.data.path, config.data.num_episodes, config.data.num_tokens = str(directory), 0, 700
    config.data.context_tokens = config.data.row_length = 512
    config.data.blocks = "action:48"
    config = freeze(config)
    opened = task.open_task(config)
    model = dataclasses.replace(tiny_model(initializer_range=0.3), vocab_size=opened.vocabulary.size)
    params = transformer.init(model, jax.random.key(2), jnp.float32)
    yield opened, generator.Generator(config, model, params, opened)
    patch.undo()


def test_a_model_that_knows_nothing_writes_calls_that_can_be_done(opened):
    its_task, model = opened
    policy = evaluation.policies_of(its_task, model, choosing={"valid": CHOICES["valid"]})["model/valid"]
    names = registry.tasks(WORLD)["test"]
    with Server(WORLD, 2, num_processes=1) as server:
        episodes = [Episode(name, server, i) for i, name in enumerate(names[:2])]
        for episode in episodes:
            episode.begin(server.call("reset", {episode.session: episode.task})[episode.session])
        for _ in range(2):
            decisions = policy.act(episodes)
            (alone,) = policy.act(episodes[:1])
            assert alone == decisions[0]  # whatever else is played
            for episode, decision in zip(episodes, decisions, strict=True):
                assert decision.num_passes > 0 and decision.num_tokens > 0
                assert server.call("parse_error", {episode.session: decision.units[-1].text})[episode.session] == ""
                if not episode.is_done:
                    episode.take(episode.decide(decision).result())
        assert all(all(episode.is_taken) and episode.num_invalid == 0 for episode in episodes)
    with Server("ToolBench-G1-tool", 1, num_processes=1) as server:  # and elsewhere what is offered there
        server.call("reset", {0: registry.tasks("ToolBench-G1-tool")["test"][0]})
        offered = server.call("functions", {0: None})[0]
        assert offered[-1].name == "Finish" and "give_answer" in offered[-1].parameters[0].choices


def test_without_a_threshold_the_likeliest_token_that_can_follow_is_taken_each_time(opened):
    its_task, model = opened
    session = registry.make_session(WORLD)
    seen = Episode("x", None, 0, units=list(session.reset(registry.tasks(WORLD)["test"][0]))).trajectory()
    grammar = Grammar(session.functions())
    careful = generator.with_decoding(model, generator.Decoding(threshold=2.0))
    policy = evaluation._choosing(its_task, careful, CHOICES["valid"])
    ids, passes = policy.write(seen, grammar)
    assert passes == len(ids) and ids[-1] == its_task.vocabulary.end_id
    for place in (0, 1, 5, 20):  # one pass each: all that follows is hidden
        (log_p_HV,) = careful.log_p(*_asked(policy, seen, ids, place))
        better = np.flatnonzero(log_p_HV[0] > log_p_HV[0][ids[place]])
        for token in better.tolist():
            whole = its_task.vocabulary.decode_text([*ids[:place], token])
            assert token == its_task.vocabulary.end_id or grammar.state(whole) is State.DEAD


def _asked(policy, seen, ids, place):
    question = policy._question(seen, ids[:place], place // 48 + 1)
    return [question], [np.ones(len(question.example), bool)]


def test_measures_of_calls_are_counted_by_hand():
    step = TextStep((), 0.0, False, False)
    texts = [Call(name, {}).json() for name in ("a", "b", "a", "zzz", "end_turn")]
    texts[1] = "b()"
    kinds = [Kind.TOOL, Kind.OBSERVATION, Kind.TOOL, Kind.OBSERVATION, Kind.USER]
    episode = Episode("t", None, 0, units=[Unit(Kind.GOAL, 0, text="g")])
    for n, (text, kind) in enumerate(zip(texts, kinds, strict=True)):
        episode.units.append(Unit(Kind.ACTION, n, text=text))
        told = Unit(kind, n + 1, text="x")
        episode.take(step._replace(units=(told,), is_invalid=kind is Kind.OBSERVATION))
    found = {name: estimate.value for name, estimate in call_measures.measures([episode, episode]).items()}
    assert found == pytest.approx(
        {"well_formed": 4 / 5, "schema_accuracy": 3 / 4, "repeated_calls": 1 / 2, "calls_per_turn": 2}
    )
    assert call_measures.has_calls([episode]) and list(found) == list(names.CALL_MEASURES)
    left = [Unit(Kind.GOAL, 0, text="g"), Unit(Kind.ACTION, 0, text="left")]
    other = Episode("t", None, 0, units=left, is_taken=[True])
    assert not call_measures.has_calls([other])
    assert not any(map(call_measures.is_call, ("", "[]", '{"name":"a"}', '{"name":1,"arguments":{}}', "[" * 10**5)))


def test_a_request_is_copied_into_a_call(opened):
    its_task, model = opened
    policies = evaluation.policies_of(its_task, model, has_functions=registry.has_functions(WORLD))
    assert "copy_request" in policies and "copy_request" not in evaluation.policies_of(its_task, model)
    with Server(WORLD, 1, num_processes=1) as server:
        (episode,) = play(server, registry.tasks(WORLD)["test"][:1], policies["copy_request"])
    first, *_, last = [json.loads(unit.text) for unit in episode.units if unit.kind is Kind.ACTION]
    goal = next(unit.text for unit in episode.units if unit.kind is Kind.GOAL)
    told = next(unit.text for unit in episode.units if unit.kind is Kind.TOOL)
    assert all(part in goal.lower() for part in first["name"].split("_for_")[0].split("_"))
    assert first["arguments"]["place"] in goal and episode.num_invalid == 0
    assert last == {"name": "Finish", "arguments": {"return_type": "give_answer", "final_answer": told}}


def test_functions_go_over_a_pipe_as_they_are():
    over = calls.of_json(json.loads(json.dumps(calls.to_json(FUNCTIONS))))
    assert over == FUNCTIONS and type(over[2].parameters[0]) is Parameter
