"""Asking about running text: what is asked, measures and baselines by hand, result rows."""

import json

import numpy as np
import pytest

import shop
from anyorder_jax.asking import measures, questions, rows
from anyorder_jax.asking.baselines import BASELINES, Counts
from anyorder_jax.asking.questions import QUESTIONS, Ask, Contexts, ask
from anyorder_jax.asking.targets import Prediction, collect_targets, is_asked
from anyorder_jax.config import DataConfig
from anyorder_jax.data import units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.masking.granularity import slots_of
from anyorder_jax.rendering.text import TextRenderer
from anyorder_jax.types import DECISION, EVIDENCE, Hidden, Kind, Trajectory, Unit

RENDERER = TextRenderer()
EPISODES = [shop.make_trajectory(n) for n in range(6)]
VOCABULARY = Vocabulary.trained([unit.text for e in EPISODES for unit in e.units], RENDERER, 400)
WHOLE = [units.tokenise(e, RENDERER, VOCABULARY) for e in EPISODES]
BY_NAME = {question.name: question for question in QUESTIONS}
DATA = DataConfig(context_tokens=160)


def asks_of(name, limit=3, seed=0, data=DATA):
    return ask(BY_NAME[name], WHOLE, Contexts(data), limit=limit, seed=seed)


@pytest.mark.parametrize("name", BY_NAME)
def test_a_question_asks_something_and_shows_nothing_later(name):
    asks = asks_of(name)
    assert {one.episode for one in asks} >= {1, 2, 3, 4}
    for one in asks:
        target_L, example = is_asked(one), one.example
        assert target_L.any() and not (target_L & ~one.hidden.is_hidden_L).any()
        assert len(example) <= 160 and not (example.kind_U[example.slots_GL[0][target_L]] == Kind.SYSTEM).any()
        asked = np.unique(example.slots_GL[0][target_L])
        kinds = set(example.kind_U[asked])
        if name == "decision":
            assert kinds <= set(DECISION) and Kind.ACTION in kinds and asked[-1] == len(example.kind_U) - 1
        if name == "forward":
            assert kinds <= set(EVIDENCE) and asked.tolist() == [len(example.kind_U) - 1]
        if name == "inverse":
            assert kinds == {Kind.ACTION} and example.kind_U[-1] in EVIDENCE
        if name == "goal":
            assert kinds == {Kind.GOAL}


def test_draws_are_functions_of_seed_question_episode_and_end():
    def drawn(asks):
        return {(one.episode, len(one.example), one.hidden.is_hidden_L.tobytes()) for one in asks}

    name = "any_order@0.5"
    everything = drawn(asks_of(name, limit=99))
    assert drawn(asks_of(name, limit=2)) < everything != drawn(asks_of(name, limit=99, seed=1))
    alone = ask(BY_NAME[name], WHOLE[:2], Contexts(DATA), limit=99, seed=0)
    assert drawn(alone) == {one for one in everything if one[0] < 2}
    few = [one.episode for one in asks_of(name, limit=2)]
    assert max(np.bincount(few)) == 2


def test_each_decision_and_each_piece_of_evidence_is_asked_once():
    whole = WHOLE[1]  # system goal o | t a | user | a a | tool tool | t a | tool
    assert questions.ends_of("causal", whole).tolist() == [4, 7, 11]
    assert questions.ends_of("forward", whole).tolist() == [5, 8, 9, 12]
    assert questions.ends_of("inverse", whole).tolist() == [5, 9, 12]


def test_a_run_without_a_budget_shows_as_many_steps_as_it_was_trained_on():
    example = questions.context(WHOLE[1], 11, DataConfig(context_tokens=0, window=2))
    assert example.kind_U.tolist() == WHOLE[1].kind_U[[0, 1, 5, 6, 7, 8, 9, 10, 11]].tolist()


PAGE = ["1: red mug\n2: blue lamp", "1: red mug\n3: green vase"]
CALL = '{"name":"buy","arguments":{"item":"mug","count":2}}'


def by_hand(asked, level="unit"):
    """The asks of one context whose units (or lines) of these numbers are hidden."""
    given = [(Kind.GOAL, "Buy a mug."), (Kind.OBSERVATION, PAGE[0]), (Kind.ACTION, CALL), (Kind.OBSERVATION, PAGE[1])]
    episode = Trajectory("hand", tuple(Unit(kind, step, text=text) for step, (kind, text) in enumerate(given)))
    example = units.tokenise(episode, RENDERER, VOCABULARY)
    is_hidden_L = np.isin(slots_of(example, level).slot_L, asked)
    return [Ask(example, Hidden(is_hidden_L, is_hidden_L, "hand", level, 1.0), 0)]


def measured(targets, prediction):
    return {
        (m.role, m.measure): (m.numerator_E.sum(), m.denominator_E.sum())
        for m in measures.measure(targets, prediction, VOCABULARY)
    }


def test_measures_of_a_prediction_by_hand():
    targets = collect_targets(by_hand([2, 3]), VOCABULARY)
    call, page = (len(VOCABULARY.encode_text(text)[0]) + 1 for text in (CALL, PAGE[1]))  # with the first end
    assert len(targets.truth_T) == call + page and targets.text_S == [CALL, PAGE[1]]
    chosen = targets.truth_T.copy()
    chosen[-2] += 1  # the last word of the page's second line
    found = measured(targets, Prediction(np.full(call + page, 2.0), chosen))
    assert found["action", "nll_per_token"] == (2 * call, call) and found["action", "nll_per_unit"] == (2 * call, 1)
    assert found["action", "nll_per_character"] == (2 * call, len(CALL))
    assert found["observation", "nll_per_character"] == (2 * page, len(PAGE[1]))
    assert found["action", "token_accuracy"] == (call, call)
    assert found["observation", "token_accuracy"] == (page - 1, page)
    assert found["action", "exact_unit"] == (1, 1) and found["observation", "exact_unit"] == (0, 1)
    assert found["action", "exact_line"] == (4, 4) and found["observation", "exact_line"] == (1, 2)
    changed = page - 1 - len(VOCABULARY.encode_text("1: red mug\n")[0])  # the end is in no line
    assert found["observation", "changed_line_token_accuracy"] == (changed - 1, changed)
    assert found["observation", "changed_line_nll_per_token"] == (2 * changed, changed)
    assert found["observation", "changed_line_exact_line"] == (0, 1)
    assert found["action", "call_exact"] == found["action", "call_name_accuracy"] == (1, 1)
    assert found["action", "call_argument_accuracy"] == (2, 2)
    without = measured(targets, Prediction(None, chosen))
    assert without == {key: value for key, value in found.items() if "nll" not in key[1]}


def test_parts_of_a_unit_count_as_lines_and_not_as_units():
    example = by_hand([])[0].example
    lines = slots_of(example, "line")
    second = np.flatnonzero(lines.unit_S[:-1] == 3)[1]
    targets = collect_targets(by_hand([second], "line"), VOCABULARY)
    assert VOCABULARY.decode_text(targets.truth_T.tolist()).strip() == "3: green vase"
    found = measured(targets, Prediction(np.ones(len(targets.truth_T)), targets.truth_T))
    assert found["observation", "exact_line"] == (1, 1) and ("observation", "exact_unit") not in found
    assert found["observation", "nll_per_character"][1] == len(VOCABULARY.decode_text(targets.truth_T.tolist()))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('{"arguments": {"count": 2, "item": "mug"}, "name": "buy"}', (1, 1, 2)),
        ('{"name":"buy","arguments":{"item":"mug","count":2.5}}', (0, 1, 1)),
        ('{"name":"buy","arguments":{"item":"mug","count":2,"more":1}}', (0, 1, 2)),
        ('{"name":"sell","arguments":{"item":"mug","count":2}}', (0, 0, 2)),
        ('{"name":"buy","arguments":{"item":"mug"', (0, 0, 0)),
        ("buy a mug", (0, 0, 0)),
    ],
)
def test_calls_are_compared_as_json(written, expected):
    found = measures.compare_calls(measures.parse_call(CALL), measures.parse_call(written))
    assert [(name, top, bottom) for name, top, bottom in found] == [
        ("call_exact", expected[0], 1), ("call_name_accuracy", expected[1], 1),
        ("call_argument_accuracy", expected[2], 2),
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"name": 1, "arguments": {}}', '{"name": "a"}', "{" * 5000, "null"])
def test_what_is_no_call_is_none(text):
    assert measures.parse_call(text) is None


def test_baselines_by_hand():
    end = VOCABULARY.end_id
    training = [Trajectory(f"t{n}", (Unit(Kind.OBSERVATION, 0, text=PAGE[n > 0]),)) for n in range(3)]
    training.append(Trajectory("wrong", (Unit(Kind.OBSERVATION, 0, text="wrong", is_expert=False),)))
    counts = Counts([units.tokenise(t, RENDERER, VOCABULARY) for t in training], 400, end)
    targets = collect_targets(by_hand([2, 3]), VOCABULARY)
    is_page_T = targets.kind_T == Kind.OBSERVATION
    first, second = ([*VOCABULARY.encode_text(text)[0], end] for text in PAGE)

    copied = counts.predict("copy", targets)
    expected = [*first, *[end] * 99][: len(second)]
    assert copied.nll_T is None and copied.chosen_T[is_page_T].tolist() == expected
    assert (copied.chosen_T[~is_page_T] == -1).all()  # no action before it
    hidden = collect_targets(by_hand([1, 3]), VOCABULARY)
    assert (counts.predict("copy", hidden).chosen_T == -1).all()  # what is hidden cannot be copied

    commonest = counts.predict("most_frequent", targets)
    assert commonest.chosen_T[is_page_T].tolist() == second and (commonest.chosen_T[~is_page_T] == -1).all()

    unigram = counts.predict("unigram", targets)
    tokens = [*first, *second, *second]
    p = np.array([(tokens.count(i) + 1) / (len(tokens) + 400) for i in second])
    np.testing.assert_allclose(unigram.nll_T[is_page_T], -np.log(p))
    np.testing.assert_allclose(unigram.nll_T[~is_page_T], np.log(400))
    with pytest.raises(ValueError, match="unknown baseline 'bigram'"):
        counts.predict("bigram", targets)


def row(task="a", question="decision", predictor="model", measure="token_accuracy", role="action", parts=(1.0, 2.0)):
    return rows.Row("run", 3, "", task, question, predictor, measure, role, *parts)


TABLE = [
    row(), row("b", parts=(3.0, 4.0)), row("b", role="thought", parts=(0.0, 2.0)),
    row(predictor="copy", parts=(0.0, 2.0)), row(measure="nll_per_token", parts=(5.0, 2.0)),
]  # fmt: skip


def test_rows_come_back_and_are_grouped(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows.write(path, TABLE)
    assert rows.read(path) == TABLE and [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
    assert json.loads(path.read_text(encoding="utf-8").splitlines()[0])["schema_version"] == rows.SCHEMA_VERSION
    found = rows.summarise(TABLE, by=("measure", "predictor", "role"))
    accuracy = found["token_accuracy", "model", "action"]
    assert (accuracy.value, accuracy.count, accuracy.episodes) == (4 / 6, 6, 2)
    assert found["nll_per_token", "model", "action"].value == 2.5 and len(found) == 4
    one = rows.summarise(TABLE, by=(), where={"measure": ["token_accuracy"], "predictor": ["model"]})
    assert one[()].value == 4 / 8
    perfect = rows.summarise([row(parts=(2.0, 2.0)), row("b", parts=(2.0, 2.0))], by=("measure", "predictor"))
    assert perfect["token_accuracy", "model"].low < 1  # a proportion has Wilson's interval there


@pytest.mark.parametrize(
    ("by", "where", "message"),
    [
        (("measure", "predictor", "rolle"), {}, "no column 'rolle' .* Did you mean 'role'"),
        (("measure", "predictor"), {"measure": ["token_acuracy"]}, "Did you mean 'token_accuracy'"),
        (("measure", "predictor"), {"question": ["forward"]}, "no question 'forward' in these results; there is dec"),
        (("predictor",), {}, "nll_per_token, token_accuracy cannot be added up"),
        (("measure",), {}, "copy, model cannot be added up"),
    ],
)
def test_what_nobody_wrote_is_an_error(by, where, message):
    with pytest.raises(ValueError, match=message):
        rows.summarise(TABLE, by=by, where=where)


@pytest.mark.parametrize("line", ["{", "[]", '{"schema_version":1,"run":"a"}', '{"schema_version":9}'])
def test_a_line_that_is_no_row_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    rows.write(path, TABLE[:1])
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"rows.jsonl:2: "):
        rows.read(path)


@pytest.mark.parametrize("kinds", [("ACTION",), ("USER", "ACTION"), ("SYSTEM", "USER"), ("GOAL",), ("THOUGHT", "TOOL")])
def test_episodes_without_goal_evidence_or_action_are_asked_what_they_have(kinds):
    episodes = [Trajectory("a", tuple(Unit(Kind[k], n, text=f"{k} {n}") for n, k in enumerate(kinds)))] * 2
    whole = [units.tokenise(episode, RENDERER, VOCABULARY) for episode in episodes]
    counts, asked = Counts(whole, 400, VOCABULARY.end_id), set()
    for question in QUESTIONS:
        targets = collect_targets(ask(question, whole, Contexts(DATA), limit=3, seed=0), VOCABULARY)
        for name in BASELINES:
            found = measures.measure(targets, counts.predict(name, targets), VOCABULARY)
            asked |= {(question.order, m.role) for m in found}
    roles = {kind.lower() for kind in kinds} - {"system"}
    assert {role for order, role in asked if order == "any_order"} == roles
    assert ("causal" in {order for order, _ in asked}) == ("ACTION" in kinds)
    assert not {order for order, _ in asked} & {"goal", "inverse", "forward"}
