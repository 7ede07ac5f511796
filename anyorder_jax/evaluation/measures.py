"""Measures: from predictions of hidden tokens to named numbers with intervals.

    nll per target       mean over all hidden tokens of -log p(x_i | what is visible), whatever they are
    nll per token        mean over hidden observation tokens i of  -log p(x_i | what is visible)
    nll per cell         mean over hidden grid cells of the sum over the cell's tokens (three words, or one)
    nll per observation  mean over hidden observations of the sum over all its tokens, direction included
    attribute accuracy   share of hidden (cell, attribute) pairs that are right; a joint word is taken apart
    cell accuracy        share of hidden grid cells of which every token is right ("joint-cell")
    object-cell accuracy the same over cells that hold an object: not unseen, empty, wall or floor
    direction accuracy   share of hidden direction words that are right
    ... changed cell     nll and accuracy over the cells whose word differs from the same cell of the observation
                         before, in the window: what copying cannot know
    exact observations   share of hidden observations of which every token is right, direction included
    action nll, accuracy mean over hidden actions of the word's -log p; share of them that are right
    goal ...             the same for hidden goals: per word, and all words right

A token is right when it is the argmax over the WHOLE vocabulary; tokens are predicted at once, not one after
another. Filler tokens are never counted; a slot of which only a part was hidden counts for its tokens, not as
a slot.
"""

from __future__ import annotations

import numpy as np

from anyorder_jax import statistics
from anyorder_jax.asking.targets import Prediction
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.evaluation.targets import GridTargets, Group
from anyorder_jax.statistics import Estimate
from anyorder_jax.types import Codec, Field, Kind, Unit

BACKGROUND = ("unseen", "empty", "wall", "floor")
ATTRIBUTES = (Field.OBJECT, Field.COLOR, Field.STATE)
GRID = (*ATTRIBUTES, Field.CELL)


MEASURES = (
    "attribute_accuracy", "cell_accuracy", "object_cell_accuracy", "changed_cell_accuracy", "direction_accuracy",
    "exact_observation_rate", "action_accuracy", "goal_word_accuracy", "exact_goal_rate", "nll_per_target",
    "nll_per_token", "nll_per_cell", "nll_per_changed_cell", "nll_per_observation", "action_nll", "goal_nll_per_word",
)  # fmt: skip
"""What `measure` can find, in its order."""


class CellWords:
    """Reads the ids of a grid word back as its attributes (object, color, state).

    Args:
      codec: the one that the tokens were written with.
      attribute_codec: the same environment's codec with three words a cell; it takes joint words apart.
      observation: any observation unit, used as a form into which words are put.
    """

    def __init__(self, codec: Codec, attribute_codec: Codec, vocabulary: Vocabulary, observation: Unit) -> None:
        self._by_ids: dict[Field, dict[tuple[int, ...], tuple[str, ...]]] = {}
        lexicon = codec.lexicon()
        for field in ATTRIBUTES:
            if field in lexicon:
                self._by_ids[field] = {tuple(vocabulary.encode_slot(w)): (w,) for w in lexicon[field]}
        if Field.CELL in lexicon:
            self._by_ids[Field.CELL] = {
                tuple(vocabulary.encode_slot(word)): _parts(word, codec, attribute_codec, observation)
                for word in lexicon[Field.CELL]
            }

    def parts(self, field: Field, ids: tuple[int, ...]) -> tuple[str, ...]:
        """The attributes of the word that `ids` begins with: one of an attribute word, three of a joint one.

        Empty when no word of the field begins so (a model may write anything)."""
        for length in range(len(ids), 0, -1):
            if found := self._by_ids[field].get(ids[:length]):
                return found
        return ()


def _parts(word: str, codec: Codec, attribute_codec: Codec, observation: Unit) -> tuple[str, ...]:
    """(object, color, state) of a joint word: an observation full of it, written with three words a cell."""
    words = [word if slot.field == Field.CELL else slot.word for slot in codec.slots(observation)]
    slots = attribute_codec.slots(codec.unit(Kind.OBSERVATION, 0, words))
    return tuple(next(slot.word for slot in slots if slot.field == field) for field in ATTRIBUTES)


def _ids_of_words(ids_T: np.ndarray, words: Group) -> np.ndarray:
    """int [W, width]: the target tokens of each word, -1 after its last."""
    rank_T = np.arange(len(ids_T)) - words.first_S[words.of_T]
    ids_WK = np.full((len(words.size_S), int(rank_T.max(initial=0)) + 1), -1, np.int64)
    ids_WK[words.of_T, rank_T] = ids_T
    return ids_WK


def _compare_grid_words(
    targets: GridTargets, chosen_T: np.ndarray, cell_words: CellWords
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each word (int [W] each): its attributes, those that are right, and whether it says that an object
    is there. All 0 for words that are not part of a grid."""
    field_W = targets.field_T[targets.words.first_S]
    num_W, right_W, is_object_W = np.zeros((3, len(field_W)), np.int64)
    grid_W = np.flatnonzero(np.isin(field_W, GRID))
    if not len(grid_W):
        return num_W, right_W, is_object_W
    truth_WK = _ids_of_words(targets.truth_T, targets.words)[grid_W]
    chosen_WK = _ids_of_words(chosen_T, targets.words)[grid_W]
    rows, row_of_W = np.unique(
        np.concatenate([field_W[grid_W, None], truth_WK, chosen_WK], axis=1), axis=0, return_inverse=True
    )
    table = np.zeros((len(rows), 3), np.int64)
    width = truth_WK.shape[1]
    for r, row in enumerate(rows.tolist()):
        field = Field(row[0])
        truth = cell_words.parts(field, tuple(i for i in row[1 : 1 + width] if i >= 0))
        chosen = cell_words.parts(field, tuple(i for i in row[1 + width :] if i >= 0))
        assert truth, f"the ids {row} are no word of {field.name}"
        right = sum(a == b for a, b in zip(truth, chosen, strict=False))
        is_object = field in (Field.OBJECT, Field.CELL) and truth[0] not in BACKGROUND
        table[r] = len(truth), right, is_object
    num_W[grid_W], right_W[grid_W], is_object_W[grid_W] = table[row_of_W.reshape(-1)].T
    return num_W, right_W, is_object_W


def _sum_of(values_T: np.ndarray, group: Group) -> np.ndarray:
    return np.bincount(group.of_T, weights=values_T, minlength=len(group.size_S))


def measure(
    targets: GridTargets, prediction: Prediction, cell_words: CellWords, weight_A: np.ndarray | None = None
) -> dict[str, Estimate]:
    """Every number of the module's docstring that the question has targets for, by name.

    Args:
      targets: what was asked.
      prediction: what one predictor said; without probabilities the nll numbers are left out.
      cell_words: reads grid words.
      weight_A: float [A], what each ask weighs in every mean (None: 1); it multiplies numerator and denominator.
    """
    weight_A = np.ones(len(targets.episode_A)) if weight_A is None else weight_A
    episodes = targets.num_episodes
    words, cells, units = targets.words, targets.cells, targets.units
    right_T = (prediction.chosen_T == targets.truth_T).astype(np.float64)
    all_right_W, all_right_C, all_right_U = (_sum_of(right_T, g) == g.size_S for g in (words, cells, units))
    num_W, right_W, says_object_W = _compare_grid_words(targets, prediction.chosen_T, cell_words)
    cell_of_W = cells.of_T[words.first_S]
    has_object_C = np.bincount(cell_of_W, weights=says_object_W, minlength=len(cells.size_S)) > 0
    is_grid_C = np.isin(targets.field_T[cells.first_S], GRID) & cells.is_whole_S
    is_changed_C = is_grid_C & (np.bincount(cells.of_T, weights=targets.is_changed_T, minlength=len(is_grid_C)) > 0)
    kind_W, kind_U = targets.kind_T[words.first_S], targets.kind_T[units.first_S]
    is_direction_W = targets.field_T[words.first_S] == Field.DIRECTION
    found: dict[str, Estimate | None] = {}

    def average(name: str, values_S: np.ndarray, counts_S: np.ndarray, ask_S: np.ndarray, share: bool) -> None:
        episode_S = targets.episode_A[ask_S]
        weight_S = weight_A[ask_S]
        top = np.bincount(episode_S, weights=weight_S * values_S * (counts_S > 0), minlength=episodes)
        bottom = np.bincount(episode_S, weights=weight_S * counts_S, minlength=episodes)
        found[name] = statistics.ratio(top, bottom, is_proportion=share)

    def shares(name: str, right_S: np.ndarray, is_counted_S: np.ndarray, group: Group) -> None:
        average(name, right_S, is_counted_S & group.is_whole_S, group.ask_S, True)

    average("attribute_accuracy", right_W, num_W * words.is_whole_S, words.ask_S, True)
    shares("cell_accuracy", all_right_C, is_grid_C, cells)
    shares("object_cell_accuracy", all_right_C, is_grid_C & has_object_C, cells)
    shares("changed_cell_accuracy", all_right_C, is_changed_C, cells)
    shares("direction_accuracy", all_right_W, is_direction_W, words)
    shares("exact_observation_rate", all_right_U, kind_U == Kind.OBSERVATION, units)
    shares("action_accuracy", all_right_U, kind_U == Kind.ACTION, units)
    shares("goal_word_accuracy", all_right_W, kind_W == Kind.GOAL, words)
    shares("exact_goal_rate", all_right_U, kind_U == Kind.GOAL, units)
    if prediction.nll_T is not None:
        nll_T, is_observation_T = prediction.nll_T, targets.kind_T == Kind.OBSERVATION
        nll_C, nll_W, nll_U = (_sum_of(nll_T, g) for g in (cells, words, units))
        average("nll_per_target", nll_T, np.ones(len(nll_T)), targets.ask_T, False)
        average("nll_per_token", nll_T, is_observation_T, targets.ask_T, False)
        average("nll_per_cell", nll_C, is_grid_C, cells.ask_S, False)
        average("nll_per_changed_cell", nll_C, is_changed_C, cells.ask_S, False)
        is_observation_U = (kind_U == Kind.OBSERVATION) & units.is_whole_S
        average("nll_per_observation", nll_U, is_observation_U, units.ask_S, False)
        average("action_nll", nll_U, (kind_U == Kind.ACTION) & units.is_whole_S, units.ask_S, False)
        average("goal_nll_per_word", nll_W, (kind_W == Kind.GOAL) & words.is_whole_S, words.ask_S, False)
    return {name: found[name] for name in MEASURES if found.get(name) is not None}  # type: ignore[misc]
