"""System text and spans of calls: the functions of the task alone, never asked; a call or an argument is hidden as a
whole."""

import dataclasses
import json

import numpy as np
import pytest

from anyorder_jax.config import MaskingConfig, defaults, freeze
from anyorder_jax.data import contexts, units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.environments import registry
from anyorder_jax.environments.play import play_text_episode
from anyorder_jax.environments.toolbench import data, sample
from anyorder_jax.masking.granularity import slots_of
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.rendering.text import TextRenderer, lines_of
from anyorder_jax.task import check_levels
from anyorder_jax.types import Field, Kind

WORLD = "ToolBench-G3-instruction"


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    """[how the system text is written] an episode of the sample's expert."""
    patch = pytest.MonkeyPatch()
    root = tmp_path_factory.mktemp("sample")
    sample.write(root, 4)
    patch.setenv(data.VARIABLE, str(root))
    task = registry.tasks(WORLD)["test"][0]
    yield {how: play_text_episode(registry.make_session(WORLD + how), task) for how in ("", data.SCHEMAS)}, task, root
    patch.undo()


def tokenised(episode, layout=units.DEFAULT_LAYOUT):
    renderer = TextRenderer()
    vocabulary = Vocabulary.trained([unit.text for unit in episode.units], renderer, 500)
    return units.tokenise(episode, renderer, vocabulary, layout), vocabulary


def texts_of(example, vocabulary, is_chosen_L):
    """The texts of the chosen tokens of each unit, end tokens left out."""
    is_word_L = is_chosen_L & (example.field_L == Field.TEXT)
    found = {}
    for u in np.unique(example.slots_GL[0][is_word_L]):
        ids = example.tokens_L[is_word_L & (example.slots_GL[0] == u)].tolist()
        found[int(u)] = vocabulary.decode_text([i for i in ids if i != vocabulary.end_id])
    return found


def test_system_text_has_the_functions_of_the_task_and_no_others(episodes):
    played, task, root = episodes
    called = {json.loads(u.text)["name"] for u in played[""].units if u.kind is Kind.ACTION}
    apis = data.instruction(root, task)["api_list"]
    signatures = played[""].units[0].text.splitlines()
    schemas = [json.loads(line) for line in played[data.SCHEMAS].units[0].text.splitlines()]
    assert len(signatures) == len(schemas) == len({(a["tool_name"], a["api_name"]) for a in apis}) + 1
    names = [schema["name"] for schema in schemas]
    assert [line.partition("(")[0] for line in signatures] == names and called <= {*names}
    assert all({"description", "parameters"} < set(schema) for schema in schemas)
    assert played[""].units[1:] == played[data.SCHEMAS].units[1:]  # nothing else depends on how it is written


@pytest.mark.parametrize("order", ["any_order", "suffix", "causal", "prefix", "forward", "inverse", "goal"])
def test_system_text_is_never_hidden(episodes, order):
    for episode in episodes[0].values():
        example, _ = tokenised(episode)
        is_system_L = np.isin(example.slots_GL[0], np.flatnonzero(example.kind_U == Kind.SYSTEM))
        sampler = AnyOrderMaskSampler(MaskingConfig(order=order, granularity="unit", rate=0.9, causal_step="any"))
        for seed in range(20):
            hidden = sampler(np.random.default_rng(seed), example)
            assert hidden.is_target_L.any() and not (hidden.is_hidden_L & is_system_L).any()


def test_a_budget_shows_the_system_text_always_and_shortens_it_with_a_mark(episodes):
    example, _ = tokenised(episodes[0][data.SCHEMAS])
    whole = np.diff(contexts.unit_starts(example))
    shown = contexts.choose(contexts.lengths_of(example), len(example.kind_U) - 1, int(whole[0] + whole[1] + whole[-1]))
    assert {0, 1, len(example.kind_U) - 1} <= {*shown.tolist()} and len(shown) < len(example.kind_U)
    short, vocabulary = tokenised(episodes[0][data.SCHEMAS], units.Layout(max_unit_tokens=100))
    texts = texts_of(short, vocabulary, np.ones(len(short), bool))
    assert "characters left out ...]" in texts[0] and short.num_shortened >= 1
    assert np.diff(contexts.unit_starts(short))[0] < 120 < whole[0]


def test_an_argument_or_a_call_is_hidden_as_a_whole(episodes):
    example, vocabulary = tokenised(episodes[0][""])
    action = int(np.flatnonzero(example.kind_U == Kind.ACTION)[-1])
    text = episodes[0][""].units[action].text
    found = {}
    for name, same in (("argument", "line"), ("call", "unit")):
        slots = slots_of(example, name)
        np.testing.assert_array_equal(slots.slot_L, slots_of(example, same).slot_L)
        mine = np.unique(slots.slot_L[example.slots_GL[0] == action])
        parts = [texts_of(example, vocabulary, slots.slot_L == slot).get(action) for slot in mine]
        found[name] = [part for part in parts if part]
    assert found["call"] == [text]
    assert "".join(found["argument"]) == text and len(lines_of(text)) == 4
    kind, answer = (
        next(part for part in found["argument"] if name in part) for name in ("return_type", "final_answer")
    )
    assert "give_answer" in kind and "Finish" not in kind and "final_answer" not in kind  # but for quotation marks,
    assert "I found" in answer and "return_type" not in answer  # which may be in one token with their neighbours
    sampler = AnyOrderMaskSampler(MaskingConfig(granularity="argument", rate=0.3, rates="tool:0,goal:0"))
    asked = set()
    for seed in range(30):
        hidden = sampler(np.random.default_rng(seed), example)
        asked |= {texts_of(example, vocabulary, hidden.is_target_L).get(action)}
    assert {answer, kind} <= asked  # alone, their names and all


def test_names_of_spans_are_checked_by_what_a_renderer_offers(episodes):
    example, _ = tokenised(episodes[0][""])
    with pytest.raises(ValueError, match="they offer unit, line, word, token, call, argument"):
        slots_of(example, "cell")
    config = defaults()
    config.data.context_tokens = config.data.row_length = 256
    config.masking.granularity = "call:0.5,argument:0.3,token:0.2"
    config = freeze(config)
    check_levels(config, TextRenderer())
    grid = dataclasses.replace(config, data=dataclasses.replace(config.data, context_tokens=0))
    with pytest.raises(ValueError, match="'call' is no span of these trajectories"):
        check_levels(grid, registry.make_codec("BabyAI-GoToObj-v0", "joint"))
