"""Web pages as text: actions, trees, budgets, differences, and the spans of nodes and arguments. Without a browser."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anyorder_jax.asking.questions import QUESTIONS, Contexts, ask
from anyorder_jax.config import DataConfig
from anyorder_jax.data import units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments.web import calls
from anyorder_jax.environments.web.calls import Action
from anyorder_jax.environments.web.renderer import PageRenderer, parts_of
from anyorder_jax.environments.web.tree import Node, difference, nodes_of, page_text, parse, parse_line
from anyorder_jax.types import Kind, Trajectory, Unit

PAGE = """RootWebArea 'Login', focused
\t[15] textbox 'User "name"' value='ann', focused
\t[16] generic, clickable
\t\tStaticText "it's"
\t[18] button 'OK', disabled=True"""


def test_an_action_is_one_known_call_with_literals():
    assert calls.parse("click('12')") == Action("click", {"bid": "12", "button": "left", "modifiers": []})
    assert calls.parse(" click(12, modifiers=['Shift']) ").arguments["modifiers"] == ["Shift"]
    assert calls.parse("select_option('3', ['a', 'b'])").arguments["options"] == ["a", "b"]
    assert calls.parse("goto('http://127.0.0.1:8000/x')").name == "goto"
    for text in (
        "click('12')",
        "fill('7', \"it's\")",
        "press('3', 'Control+a')",
        "noop()",
        "noop(50)",
        "scroll(0, -9)",
    ):
        assert calls.parse(text).text() == text.replace('"it\'s"', repr("it's"))
    for wrong, reason in (
        ("", "expected one call"),
        ("click('1'); click('2')", "expected one call"),
        ("page.click('1')", "expected one call"),
        ("__import__('os').system('id')", "expected one call"),
        ("eval('1')", "no function 'eval'"),
        ("click(bid)", "literals"),
        ("click('1' * 9999999)", "literals"),
        ("click()", "got no bid"),
        ("click('1', '2', '3', '4')", "other arguments"),
        ("click('1', bid='2')", "other arguments"),
        ("click('a12')", "number in brackets"),
        ("click(True)", "number in brackets"),
        ("click('١')", "number in brackets"),
        ("click('1', 'side')", "left, middle, right"),
        ("fill('1', 2)", "expected a text"),
        ("press('1', 'Hyper+a')", "expected a key"),
        ("keyboard_press('')", "expected a key"),
        ("noop(-1)", "milliseconds"),
        ("noop(1e99)", "a number"),
        ("goto('file:///etc/passwd')", "this machine's own servers"),
        ("goto('http://example.com@10.0.0.1/')", "this machine's own servers"),
        ("(" * 5000, "expected one call"),
        ("fill('1', '" + "x" * 30_000 + "')", "characters at most"),
    ):
        with pytest.raises(ValueError, match=reason) as error:
            calls.parse(wrong)
        assert "\n" not in str(error.value) and len(str(error.value)) < 400
    assert calls.describe().splitlines()[0] == "click(bid, button='left', modifiers=[])"


def test_a_tree_is_written_as_browsergym_does():
    def node(number, role, name, *children, value=None, **properties):
        return {
            "nodeId": number, "role": {"value": role}, "name": {"value": name}, "childIds": list(children),
            "properties": [{"name": k, "value": {"value": v}} for k, v in properties.items()],
            "backendDOMNodeId": int(number),
        } | ({} if value is None else {"value": {"value": value}})  # fmt: skip

    tree = [
        node("1", "RootWebArea", "Login", "2", "4", "6", "8", focused=True, url="file:///secret/login.html"),
        node("2", "textbox", 'User "name"', "3", value="ann", focused=True, editable="plaintext", focusable=True),
        node("3", "StaticText", "ann", "9"),  # what the field says already
        node("4", "generic", "", "5"),
        node("5", "StaticText", "it's"),
        node("6", "button", "OK", "7", disabled=True, invalid="false"),
        node("7", "generic", "", "10"),
        node("8", "generic", "", "11"),
        node("9", "InlineTextBox", "ann"),
        node("10", "StaticText", "OK"),
        {"nodeId": "11", "ignored": True, "role": {"value": "none"}, "name": {"value": ""}, "childIds": ["11", "12"]},
    ]
    shown = nodes_of(tree, {2: "15", 4: "16", 6: "18", 7: "19", 8: "20"}, frozenset([4, 6]))
    assert page_text(shown) == PAGE
    assert parse(PAGE) == shown


_TEXTS = st.text(max_size=20)


@given(
    st.integers(0, 9),
    st.sampled_from(["", "7"]),
    _TEXTS,
    st.none() | _TEXTS,
    st.lists(st.sampled_from(["focused", "x='a, b'"])),
)
def test_a_line_is_read_as_the_node_that_it_was(depth, bid, name, value, attributes):
    for role in ("button", "graphics-symbol"):
        node = Node(depth, bid, role, name, value, tuple(attributes))
        assert "\n" not in node.line() and parse_line(node.line()) == node


def test_lines_that_are_no_nodes_are_none():
    for text in ("", "... 3 nodes left out", "notice: the page did not load", "3 lines as before", "button 'open"):
        assert parse_line(text) is None


def test_a_budget_leaves_out_what_says_nothing_first_and_says_so():
    nodes = [Node(0, "", "RootWebArea", "Shop")]
    for number in range(20):
        nodes += [Node(depth, str(4 * number + depth), "paragraph", "") for depth in (1, 2, 3)]
        nodes += [
            Node(4, "", "StaticText", f"about lamp {number}"),
            Node(4, str(4 * number), "button", f"Buy {number}"),
        ]
    whole = page_text(nodes)
    assert page_text(nodes, len(whole) + 1) == whole
    for budget in (1300, 1100, 300, 40, 1):
        text = page_text(nodes, budget)
        kept, marks = parse(text), [line for line in text.split("\n") if line.startswith("... ")]
        assert kept[0] == nodes[0] and (len(text) <= budget or kept == nodes[:1])
        assert sum(int(mark.split()[1]) for mark in marks) == len(nodes) - len(kept)
        if budget >= 1100:
            assert {n.name for n in kept if n.role == "button"} == {f"Buy {n}" for n in range(20)}
    left_out = [node for node in nodes if node not in parse(page_text(nodes, len(whole) - 100))]
    assert left_out and {node.role for node in left_out} == {"paragraph"}


def test_a_difference_is_shorter_than_the_page_or_the_page():
    after = PAGE.replace("value='ann'", "value='bob'")
    assert difference(PAGE, after) == (
        "4 lines as before\n- \t[15] textbox 'User \"name\"' value='ann', focused\n"
        "+ \t[15] textbox 'User \"name\"' value='bob', focused"
    )
    assert difference(PAGE, PAGE) == "5 lines as before"
    assert difference(PAGE, "RootWebArea 'Done'") == "RootWebArea 'Done'"


def test_a_node_and_an_argument_are_spans_of_their_own():
    renderer = PageRenderer()
    assert renderer.levels == ("unit", "node", "word", "token")
    slots = renderer.slots(Unit(Kind.OBSERVATION, 0, text=PAGE))
    assert renderer.unit(Kind.OBSERVATION, 0, [slot.word for slot in slots]).text == PAGE
    nodes = ["".join(s.word for s in slots if s.cell == n) for n in range(5)]
    assert nodes == PAGE.splitlines(keepends=True)
    assert parts_of("fill('15', 'ann, b')") == ["fill(", "'15'", ", 'ann, b'", ")"]
    assert parts_of("noop()") == ["noop()"] and parts_of("fill(") == [] and parts_of("eval('1')") == []
    for text in ("fill('15', 'ann')", "fill('15', 'ÖK')", "fill(", "noop()", "click('1',\n'left')"):
        words = [slot.word for slot in renderer.slots(Unit(Kind.ACTION, 0, text=text))]
        assert "".join(words) == text


def test_questions_hide_whole_nodes_of_a_page():
    renderer = PageRenderer()
    pages = [PAGE, PAGE.replace("ann", "bob"), PAGE.replace("OK", "Sign in")]
    made = []
    for page in pages:
        kinds = (Kind.GOAL, "Log in."), (Kind.OBSERVATION, page), (Kind.ACTION, "fill('15', 'ann')")
        made.append(Trajectory("a page", tuple(Unit(kind, 0, text=text) for kind, text in kinds)))
    vocabulary = Vocabulary.trained([unit.text for one in made for unit in one.units], renderer, 300)
    whole = [units.tokenise(one, renderer, vocabulary) for one in made]
    question = next(question for question in QUESTIONS if question.name == "any_order@0.3/line")
    asks = ask(question, whole, Contexts(DataConfig(context_tokens=400, row_length=400)), limit=4, seed=0)
    assert asks and {one.hidden.granularity for one in asks} == {"node"}
    for one in asks:
        node_L = one.example.slots_GL[1]
        for node in np.unique(node_L[one.hidden.is_hidden_L]):
            assert one.hidden.is_hidden_L[node_L == node].all()
