"""Holes at places of an episode, and what a model is shown around them."""

import numpy as np
import pytest

from anyorder_jax.acting import filling
from anyorder_jax.data import units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.rendering.text import TextRenderer
from anyorder_jax.types import Kind, Trajectory, Unit


def tokenised(*told):
    """An episode of (kind, step, text)."""
    trajectory = Trajectory("e", tuple(Unit(kind, step, text) for kind, step, text in told))
    vocabulary = Vocabulary.trained([unit.text for unit in trajectory.units], TextRenderer(), 300)
    return units.tokenise(trajectory, TextRenderer(), vocabulary), vocabulary


def test_a_place_is_a_unit_a_line_of_it_or_a_word_of_that():
    told = (Kind.GOAL, 0, "buy tea"), (Kind.OBSERVATION, 0, "one two\nthree four five\n"), (Kind.ACTION, 0, "go")
    example, vocabulary = tokenised(*told)
    for place, text in (((1,), told[1][2]), ((1, 1), "three four five\n"), ((1, 1, 1), " four"), ((0, 0, 1), " tea")):
        ids = example.tokens_L[filling.hidden_at(example, place)].tolist()
        assert units.text_of(ids, vocabulary) == text
    for place, message in (
        ((3,), "there is no unit 3: the episode has units 0 to 2"), ((1, 99), "there is no line 99: unit 1 has"),
        ((1, 0, 3), "there is no word 3: unit 1 has 3 there"), ((1, -1), "there is no line -1"),
        ((), "a place has one to 4 numbers"), ((0, 0, 0, 0, 0), "a place has one to 4 numbers"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            filling.hidden_at(example, place)


def test_of_the_past_alone_a_hole_sees_nothing_of_its_decision_nor_of_what_follows():
    example, _ = tokenised(
        (Kind.GOAL, 0, "tea"), (Kind.OBSERVATION, 0, "a shop"), (Kind.THOUGHT, 0, "hm"), (Kind.ACTION, 0, "go in"),
        (Kind.OBSERVATION, 1, "shelves"), (Kind.ACTION, 1, "take"), (Kind.TOOL, 1, "taken"),
    )  # fmt: skip
    for place, hidden, last in (((3, 0, 1), [2, 3], 3), ((2,), [2, 3], 3), ((4,), [4], 4), ((1, 0), [1], 1)):
        shown = filling.shown_around(example, filling.hidden_at(example, place), 0, filling.PAST)
        assert shown.number_U.tolist() == list(range(last + 1))
        assert np.unique(shown.example.slots_GL[0][shown.is_hidden_L]).tolist() == hidden
        assert (shown.is_hidden_L == np.isin(shown.example.slots_GL[0], hidden)).all()
    two = filling.hidden_at(example, (3,)) | filling.hidden_at(example, (5,))
    shown = filling.shown_around(example, two, 0, filling.PAST)  # what lies between is not known yet
    assert np.unique(shown.example.slots_GL[0][shown.is_hidden_L]).tolist() == [2, 3, 4, 5]
    with pytest.raises(ValueError, match="nothing is hidden"):
        filling.shown_around(example, np.zeros(len(example), bool), 0)
