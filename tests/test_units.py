"""Tokenising is exact and invertible; windows are what tokenising the shorter trajectory would give."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder_jax.data import units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.types import Field, Kind, Tokenised, Trajectory, Unit
from corridor import ACTIONS, BPE_DIRECTORY, GOAL_WORDS, NUM_CELLS, CorridorCodec, make_trajectory

CODECS = {profile: CorridorCodec(profile) for profile in ("joint", "attributes")}
VOCABULARIES = {
    (profile, name): Vocabulary.builtin(codec) if name == "builtin" else Vocabulary.from_directory(BPE_DIRECTORY, codec)
    for profile, codec in CODECS.items()
    for name in ("builtin", "bpe")
}
every_vocabulary = st.sampled_from(sorted(VOCABULARIES))
trajectories = st.builds(
    make_trajectory,
    number=st.integers(0, 10_000),
    num_actions=st.integers(0, 6),
    goal=st.lists(st.sampled_from(GOAL_WORDS), min_size=1, max_size=17).map(" ".join),
)
properties = settings(max_examples=60, deadline=None, derandomize=True)


def tokenise(which, trajectory):
    return units.tokenise(trajectory, CODECS[which[0]], VOCABULARIES[which])


def assert_well_formed(example: Tokenised):
    """Shapes, dtypes, and slot ids that nest and are dense in order of time."""
    length = len(example)
    assert example.tokens_L.dtype == np.int32 and example.field_L.dtype == np.int8
    assert example.slots_GL.dtype == np.int32 and example.slots_GL.shape == (4, length)
    is_frame_L = example.field_L == Field.FRAME
    assert ((example.slots_GL == -1) == is_frame_L).all()
    for ids_K in example.slots_GL[:, ~is_frame_L]:
        assert ids_K[0] == 0 and set(np.diff(ids_K)) <= {0, 1}
    for coarse_K, fine_K in zip(example.slots_GL[:-1, ~is_frame_L], example.slots_GL[1:, ~is_frame_L], strict=True):
        assert not ((np.diff(coarse_K) == 1) & (np.diff(fine_K) == 0)).any(), "a slot reaches into two larger ones"
    assert example.slots_GL[0].max() + 1 == len(example.kind_U) == len(example.step_U) == len(example.is_expert_U)


def assert_same(one: Tokenised, other: Tokenised):
    for field in dataclasses.fields(Tokenised):
        left, right = np.asarray(getattr(one, field.name)), np.asarray(getattr(other, field.name))
        assert left.dtype == right.dtype, field.name
        np.testing.assert_array_equal(left, right, err_msg=field.name)


@properties
@given(every_vocabulary, trajectories)
def test_round_trip(which, trajectory):
    example = tokenise(which, trajectory)
    assert_well_formed(example)
    assert tuple(units.detokenise(example, CODECS[which[0]], VOCABULARIES[which])) == trajectory.units


@properties
@given(every_vocabulary, trajectories, st.integers(1, 8), st.data())
def test_window_is_what_the_shorter_trajectory_gives(which, trajectory, num_steps, data):
    end_step = data.draw(st.integers(0, trajectory.units[-1].step))
    kept = [u for u in trajectory.units if u.kind is Kind.GOAL or end_step - num_steps < u.step <= end_step]
    cut = units.window(tokenise(which, trajectory), end_step, num_steps)
    assert_well_formed(cut)
    assert_same(cut, tokenise(which, dataclasses.replace(trajectory, units=tuple(kept))))


@properties
@given(every_vocabulary, trajectories, st.data())
def test_window_of_a_window(which, trajectory, data):
    end_step = data.draw(st.integers(0, trajectory.units[-1].step))
    example = tokenise(which, trajectory)
    assert_same(units.window(units.window(example, end_step, 5), end_step, 3), units.window(example, end_step, 3))


def test_window_does_not_change_the_trajectory():
    example = tokenise(("joint", "builtin"), make_trajectory(3, 6))
    before = example.slots_GL.copy()
    units.window(example, 5, 2)
    np.testing.assert_array_equal(example.slots_GL, before)


@pytest.mark.parametrize(("end_step", "num_steps"), [(-1, 2), (4, 2), (2, 0)])
def test_window_outside_the_trajectory_is_an_error(end_step, num_steps):
    with pytest.raises(ValueError, match=r"units\.window: expected 0 <= end_step < 4"):
        units.window(tokenise(("joint", "builtin"), make_trajectory(0, 3)), end_step, num_steps)


def test_layout_of_the_builtin_tokenizer():
    which = ("attributes", "builtin")
    example = tokenise(which, make_trajectory(1, 1, goal="go to the ball"))
    vocabulary = VOCABULARIES[which]
    observation = [Field.FRAME, Field.DIRECTION] + [Field.OBJECT, Field.COLOR, Field.STATE] * NUM_CELLS
    expected = [Field.FRAME] + [Field.TEXT] * 8 + observation + [Field.FRAME, Field.ACTION] + observation
    assert example.field_L.tolist() == expected
    assert example.tokens_L[[0, 9, 23]].tolist() == [
        vocabulary.frame(kind)[0] for kind in (Kind.GOAL, Kind.OBSERVATION, Kind.ACTION)
    ]
    assert example.tokens_L[5:9].tolist() == [vocabulary.end_id] * 4
    cells = example.slots_GL[1, 10:23]
    assert (cells - cells[0]).tolist() == [0] + [c for c in range(1, NUM_CELLS + 1) for _ in range(3)]
    assert len(set(example.slots_GL[2, 10:23])) == len(set(example.slots_GL[3, 10:23])) == 13


@pytest.mark.parametrize(("num_words", "num_slots"), [(1, 8), (7, 8), (8, 16), (9, 16)])
def test_a_goal_shows_its_length_only_up_to_a_block(num_words, num_slots):
    example = tokenise(("joint", "builtin"), make_trajectory(1, 1, goal=" ".join(["go"] * num_words)))
    assert (example.field_L == Field.TEXT).sum() == num_slots
    goal = example.slots_GL[:, example.slots_GL[0] == 0]
    assert all(len(set(row)) == num_slots for row in goal[1:]), "each end token is hidden on its own"


@pytest.mark.parametrize("profile", ["joint", "attributes"])
def test_fixed_slots_do_not_show_their_length_with_a_real_tokenizer(profile):
    vocabulary = VOCABULARIES[profile, "bpe"]
    lengths = {len(units.tokenise(make_trajectory(i, 2), CODECS[profile], vocabulary)) for i in range(20)}
    assert len(lengths) == 1
    example = units.tokenise(make_trajectory(0, 2), CODECS[profile], vocabulary)
    is_filler_L = example.field_L == Field.FILLER
    assert is_filler_L.any()
    assert set(example.tokens_L[is_filler_L]) == {vocabulary.end_id}
    previous = np.flatnonzero(is_filler_L) - 1
    assert (example.slots_GL[:, is_filler_L] == example.slots_GL[:, previous]).all(), "filler goes with its word"


def test_thoughts_and_injected_actions():
    """Units that BabyAI does not have, and wrong actions, keep their place and mark."""
    episode = Trajectory("t", (
        Unit(Kind.GOAL, 0, text="go to the door"),
        *make_trajectory(0, 0).units[1:],
        Unit(Kind.THOUGHT, 0, text="to the purple door"),
        Unit(Kind.ACTION, 0, text=ACTIONS[1], is_expert=False),
    ))  # fmt: skip
    example = tokenise(("joint", "builtin"), episode)
    assert example.kind_U.tolist() == [Kind.GOAL, Kind.OBSERVATION, Kind.THOUGHT, Kind.ACTION]
    assert example.is_expert_U.tolist() == [True, True, True, False]
    thought_L = example.slots_GL[0] == 2
    assert thought_L.sum() == units.TEXT_BLOCK
    assert tuple(units.detokenise(example, CODECS["joint"], VOCABULARIES["joint", "builtin"])) == episode.units


@pytest.mark.parametrize("steps", [(), (0, 1, 0), (-1, 0)])
def test_units_out_of_order_are_an_error(steps):
    episode = Trajectory("t", tuple(Unit(Kind.ACTION, step, text="left") for step in steps))
    with pytest.raises(ValueError, match="units in order of time"):
        tokenise(("joint", "builtin"), episode)


def test_predicted_tokens_that_are_no_unit_are_an_error():
    example = tokenise(("joint", "builtin"), make_trajectory(0, 1))
    left = VOCABULARIES["joint", "builtin"].encode_slot("left")[0]
    tokens_L = np.where(example.field_L == Field.CELL, left, example.tokens_L)
    wrong = dataclasses.replace(example, tokens_L=tokens_L)
    with pytest.raises(ValueError, match="corridor: expected 12 attributes"):
        units.detokenise(wrong, CODECS["joint"], VOCABULARIES["joint", "builtin"])
