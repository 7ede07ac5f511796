"""Generator: a trained model writes units of text, a decision or any other, into holes of a context.

    context   system goal | o0 a0 | user o1 | [thought] M M .. M [action] M M .. M        `data.blocks` masks a role
    filled                                    [thought] Number 3 is it. E E [action] buy 3 E E

The context is made by `contexts`, as in training. A unit that fills its block without an end gets another block.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from anyorder_jax import cached_decode, decode, keys, prefix_decode, sharding
from anyorder_jax.acting.decoding import SURE as SURE
from anyorder_jax.acting.decoding import Decoding as Decoding
from anyorder_jax.acting.message import action_start
from anyorder_jax.acting.question import Answer as Answer
from anyorder_jax.acting.question import Question as Question
from anyorder_jax.acting.question import next_step, reaches_end
from anyorder_jax.acting.scores import HOLE_STEP, LENGTH_STEP, Hole, Scores, max_rows, padded, padded_rows
from anyorder_jax.config import Config
from anyorder_jax.data import contexts, units
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.task import Task
from anyorder_jax.types import Kind, Tokenised, Trajectory, Unit

MAX_BLOCKS = 8
"""Blocks that a unit may fill before it is taken as it is."""


class Written(NamedTuple):
    """Units that a model wrote, the ids and probabilities of their tokens (first end token included), and the forward
    passes that it took."""

    units: tuple[Unit, ...]
    ids: tuple[np.ndarray, ...]
    probabilities: tuple[np.ndarray, ...]
    num_passes: int


class Generator:
    """Fills holes in batches of a few fixed shapes.

    Args:
      config: of the run.
      model_config, params: the model.
      task: its renderer, vocabulary and layout.
      decoding: how.

    Raises:
      ValueError: for trajectories that are no running text: their units have fixed slots, and a policy scores actions;
        for a prefix that is to be reused by weights on several devices.
    """

    def __init__(
        self, config: Config, model_config: ModelConfig, params: Any, task: Task, decoding: Decoding = SURE
    ) -> None:
        if not task.codec.is_running_text:
            raise ValueError(
                f"generator: {task.codec.name} writes units of fixed slots, not running text. Act in its environment "
                "with `python -m anyorder_jax.evaluate`."
            )
        self._params, self._task, self._decoding, self._budget = params, task, decoding, config.data.context_tokens
        self._mesh = sharding.mesh_of(params)
        self._joint = task.vocabulary.frames.around([Kind.GOAL, Kind.THOUGHT, Kind.ACTION])[1].joint
        self._end_ids = sorted(task.vocabulary.frames.end_ids)
        ends = task.vocabulary.end_id, self._end_ids
        self._model_block = config.train.block_size if decode.is_block_causal(config) else None
        if self._model_block and self._mesh.size == 1:
            self._fill = cached_decode.make_fill(config, model_config, *ends)
        else:
            self._fill = decode.make_fill(config, model_config, ends[0], self._mesh, closing_ids=ends[1])
        self._reuse = self._fill if self._model_block else prefix_decode.make_fill(config, model_config, *ends)
        decoding.refuse_devices(self._mesh.size)
        vocabulary = task.vocabulary
        self._is_word_V = np.zeros(model_config.vocab_size, bool)
        self._is_word_V[sorted(set(vocabulary.tokenizer.get_vocab().values()) - vocabulary.reserved_ids)] = True
        may_V = self._is_word_V | np.isin(np.arange(len(self._is_word_V)), self._end_ids)
        self.scores = Scores(config, model_config, params, (vocabulary.mask_id, vocabulary.pad_id), may_V)

    @property
    def decoding(self) -> Decoding:
        """How holes are filled."""
        return self._decoding

    def write(
        self, episodes: Sequence[Trajectory], kinds: Sequence[Sequence[Kind]], seeds: Sequence[int] | None = None,
        unseen: Sequence[np.ndarray] | None = None,
    ) -> list[Written]:  # fmt: skip
        """The next units of each episode, of the kinds given for it, all of an episode together.

        Args:
          episodes: what has been seen; the units that are written follow their last one. The same one several times,
            with as many seeds, gives several samples.
          kinds: of each episode, what to write, e.g. (THOUGHT, ACTION).
          seeds: of the draws of each; default `decoding.seed` for all.
          unseen: of each episode, numbers of units that the model does not see: they are hidden, and not asked.
        """
        seeds = [self._decoding.seed] * len(episodes) if seeds is None else seeds
        unseen = [np.zeros(0, int)] * len(episodes) if unseen is None else unseen
        written: list[Written | None] = [None] * len(episodes)
        blocks = [[1] * len(asked) for asked in kinds]
        passes = [0] * len(episodes)
        todo = list(range(len(episodes)))
        while todo:
            questions = [self._without(self.question(episodes[i], kinds[i], blocks[i]), unseen[i]) for i in todo]
            longer = []
            answers = self.fill(questions, [seeds[i] for i in todo])
            for i, question, answer in zip(todo, questions, answers, strict=True):
                passes[i] += answer.num_passes
                spans = self._spans(question.example, len(self._holes(kinds[i])))
                endless = [k for k, span in enumerate(spans) if not np.isin(answer.tokens_L[span], self._end_ids).any()]
                if endless and blocks[i][endless[0]] < MAX_BLOCKS:
                    blocks[i][endless[0]] += 1
                    longer.append(i)
                else:
                    written[i] = self._read(episodes[i], kinds[i], answer, spans, passes[i])
            todo = longer
        return [w for w in written if w is not None]

    def fill(self, questions: Sequence[Question], seeds: Sequence[int] | None = None) -> list[Answer]:
        """Fills the holes of each question; those of a like length go through the model together.

        Args:
          questions: examples with holes.
          seeds: of the draws of each; default `decoding.seed` for all. A draw depends on its seed, what is seen and
            where the holes are, not on what else is asked.
        """
        seeds = [self._decoding.seed] * len(questions) if seeds is None else seeds
        answers: list[Answer | None] = [None] * len(questions)
        shapes: dict[tuple[int, int], list[int]] = {}
        for i, question in enumerate(questions):
            num_holes = int(question.is_hidden_L.sum())
            if not num_holes:
                answers[i] = Answer(question.example.tokens_L, np.ones(len(question.example), np.float32), 0)
                continue
            shape = padded(len(question.example), LENGTH_STEP), padded(num_holes, HOLE_STEP)
            shapes.setdefault(shape, []).append(i)
        for (length, num_holes), members in sorted(shapes.items()):
            most = max_rows(length, self._mesh)
            for first in range(0, len(members), most):
                chosen = members[first : first + most]
                found = self._fill_batch([questions[i] for i in chosen], [seeds[i] for i in chosen], length, num_holes)
                for i, answer in zip(chosen, found, strict=True):
                    answers[i] = answer
        return [answer for answer in answers if answer is not None]

    def log_p(self, questions: Sequence[Question], is_seen_L: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Log-probabilities of every token at the hidden places of each question, float32 [H, V], in one pass.

        Args:
          questions: as for `fill`.
          is_seen_L: bool [L] of each: what else the model sees; the rest is hidden too, and not asked.
        """
        pairs = zip(questions, is_seen_L, strict=True)
        return [self.scores.log_p(Hole(q.example, q.is_hidden_L, ~seen_L)) for q, seen_L in pairs]

    @property
    def task(self) -> Task:
        """The task of the run: its vocabulary and codec, with which units are written and read."""
        return self._task

    @property
    def budget(self) -> int:
        """Tokens of a context; 0: no limit."""
        return self._budget

    def _fill_batch(
        self, questions: Sequence[Question], seeds: Sequence[int], length: int, num_holes: int
    ) -> list[Answer]:
        vocabulary = self._task.vocabulary
        num_rows = padded_rows(len(questions), self._mesh)
        tokens_BL = np.full((num_rows, length), vocabulary.pad_id, np.int32)
        lengths_B, seeds_B = np.zeros(num_rows, np.int32), np.zeros(num_rows, np.uint32)
        place_BH, unit_BH, block_BH = np.zeros((3, num_rows, num_holes), np.int32)
        block_BH -= 1
        is_end_BH = np.zeros((num_rows, num_holes), bool)
        for b, (example, is_hidden_L, block_size, _) in enumerate(questions):
            places = np.flatnonzero(is_hidden_L)
            here = slice(0, len(places))
            tokens_BL[b, : len(example)] = np.where(is_hidden_L, vocabulary.mask_id, example.tokens_L)
            lengths_B[b] = len(example)
            seeds_B[b] = keys.number(seeds[b], "generate", zlib.crc32(tokens_BL[b, : len(example)].tobytes()))
            place_BH[b, here], unit_BH[b, here] = places, example.slots_GL[0, places]
            is_new = np.diff(example.slots_GL[0, places], prepend=-1) != 0
            offset = np.arange(len(places)) - np.maximum.accumulate(np.where(is_new, np.arange(len(places)), 0))
            is_first = is_new | (offset % block_size == 0)
            if self._model_block:  # what is filled together lies in one block of the model
                is_first |= np.diff(places // self._model_block, prepend=-1) != 0
            block_BH[b, here] = np.cumsum(is_first) - 1
            is_end_BH[b, here] = reaches_end(example, is_hidden_L)[places]
        is_end_V = np.isin(np.arange(len(self._is_word_V)), self._end_ids)
        allowed_BHV = self._is_word_V[None, None] | (is_end_BH[..., None] & is_end_V)
        rows = (tokens_BL, lengths_B, decode.Holes(place_BH, unit_BH, block_BH), allowed_BHV, seeds_B)
        *placed, seeds_B = sharding.place_batch(rows, self._mesh)
        threshold, draws = self._decoding.threshold, self._decoding.draws
        fill = self._reuse if self._decoding.reuse_prefix else self._fill
        filled = jax.device_get(fill(self._params, *placed, threshold, seeds_B, draws))
        answers = []
        for b, question in enumerate(questions):
            tokens_L, probability_L = question.example.tokens_L.copy(), np.ones(len(question.example), np.float32)
            places = np.flatnonzero(question.is_hidden_L)
            tokens_L[places] = filled.tokens_BH[b, : len(places)]
            probability_L[places] = filled.probability_BH[b, : len(places)]
            answers.append(Answer(tokens_L, probability_L, int(filled.passes_B[b])))
        return answers

    def _without(self, question: Question, unseen: np.ndarray) -> Question:
        """The question with the tokens of these units of the episode masked."""
        if not len(unseen):
            return question
        assert question.number_U is not None
        is_unseen_U = np.isin(question.number_U, unseen)
        is_unseen_L = np.append(is_unseen_U, False)[question.example.slots_GL[0]]  # -1: what is of no unit
        tokens_L = np.where(is_unseen_L, self._task.vocabulary.mask_id, question.example.tokens_L)
        return question._replace(example=dataclasses.replace(question.example, tokens_L=tokens_L))

    def question(self, episode: Trajectory, kinds: Sequence[Kind], blocks: Sequence[int]) -> Question:
        """What comes next in an episode, as a hole of so many blocks for each kind."""
        step = next_step(episode, kinds[0])
        holes = self._holes(kinds)
        empty = tuple(Unit(kind, step, text="") for kind in holes)
        layout = self._task.layout
        sizes = list(layout.blocks)
        for kind, number in zip(kinds, blocks, strict=True):
            sizes[kind] = layout.blocks[kind] * number
        if holes != tuple(kinds):
            sizes[holes[0]] = sum(layout.blocks[kind] * number for kind, number in zip(kinds, blocks, strict=True))
            if Kind.ACTION not in kinds:  # it is written all the same
                sizes[holes[0]] += layout.blocks[Kind.ACTION]
        codec, vocabulary = self._task.codec, self._task.vocabulary
        seen = units.tokenise(episode, codec, vocabulary, layout, after=kinds)
        hole = units.tokenise(
            Trajectory("hole", empty), codec, vocabulary, layout._replace(blocks=tuple(sizes)),
            before=[unit.kind for unit in episode.units],
        )  # fmt: skip
        example = contexts.joined(seen, hole)
        shown = contexts.choose_for(contexts.lengths_of(example), len(holes), self._budget)
        example = contexts.select(example, shown)
        is_hidden_L = example.slots_GL[0] >= len(example.kind_U) - len(holes)
        block_size = 1 if self._decoding.is_left_to_right else min(layout.blocks[kind] for kind in kinds)
        return Question(example, is_hidden_L, block_size, shown)

    def _holes(self, kinds: Sequence[Kind]) -> tuple[Kind, ...]:
        """The units that are written. Where nothing ends a thought inside its message, one: what follows it too."""
        return (Kind.ACTION,) if self._joint and kinds[0] == Kind.THOUGHT else tuple(kinds)

    def _spans(self, example: Tokenised, num: int) -> list[np.ndarray]:
        """bool [L] of each of the last `num` units."""
        first = len(example.kind_U) - num
        return [example.slots_GL[0] == first + k for k in range(num)]

    def _read(
        self, episode: Trajectory, kinds: Sequence[Kind], answer: Answer, spans: Sequence[np.ndarray], passes: int
    ) -> Written:
        step = next_step(episode, kinds[0])
        if self._holes(kinds) != tuple(kinds):
            return self._read_message(step, kinds, answer, spans[0], passes)
        written, ids, probabilities = [], [], []
        for kind, span in zip(kinds, spans, strict=True):
            tokens, sure = answer.tokens_L[span], answer.probability_L[span]
            stop = int(np.argmax(np.append(np.isin(tokens, self._end_ids), True))) + 1
            text = units.text_of(tokens.tolist(), self._task.vocabulary)
            written.append(self._task.codec.unit(kind, step, [text]))
            ids.append(tokens[:stop])
            probabilities.append(sure[:stop])
        return Written(tuple(written), tuple(ids), tuple(probabilities), passes)

    def _read_message(self, step: int, kinds: Sequence[Kind], answer: Answer, span: np.ndarray, passes: int) -> Written:
        """A message as its thought and, where that was asked, its action."""
        vocabulary = self._task.vocabulary
        tokens, sure = answer.tokens_L[span], answer.probability_L[span]
        end = int(np.argmax(np.append(np.isin(tokens, self._end_ids), True)))
        text = vocabulary.decode_text(tokens[:end].tolist())
        start = action_start(text, vocabulary.frames.calls)
        middle = next(n for n in range(end + 1) if len(vocabulary.decode_text(tokens[:n].tolist())) >= start)
        parts = (text[:start].removesuffix(self._joint), units.text_of(tokens[middle:end].tolist(), vocabulary))
        places = (slice(0, middle), slice(middle, end + 1))
        return Written(
            tuple(self._task.codec.unit(kind, step, [part]) for kind, part in zip(kinds, parts, strict=False)),
            tuple(tokens[here] for here in places[: len(kinds)]),
            tuple(sure[here] for here in places[: len(kinds)]),
            passes,
        )


def with_decoding(generator: Generator, decoding: Decoding) -> Generator:
    """The same model, decoding otherwise; what was compiled is kept."""
    other = object.__new__(Generator)
    other.__dict__.update(generator.__dict__)
    other._decoding = decoding
    decoding.refuse_devices(other._mesh.size)
    return other
