"""One pass over a checkpoint, a layer in memory at a time: numbers of its weights, its losses, and those of repairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from anyorder_jax.health import questions
from anyorder_jax.health.questions import RATES, Rows
from anyorder_jax.health.verdict import mean_and_error
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.progress import Progress
from conversion.health import alternatives, experts
from conversion.health.alternatives import Alternative, Edit
from conversion.health.layers import Checkpoint, Weights
from conversion.health.passes import LayerWeights, Reading, answers, begin, through
from conversion.health.weights import Collector

SCORED = ("15%", "50%")
"""The texts by which repairs are judged."""
PERMUTED, BIAS_DROPPED = "experts permuted", "expert bias dropped"


class Tokens(NamedTuple):
    """What a tokenizer is asked for: ids of a text, text of ids, ids of the mask and pad tokens, rows in use."""

    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str]
    mask_id: int
    pad_id: int
    num_used: int


class Trial(NamedTuple):
    """What a repair does. gain: nats per asked token that it saves; error: the standard error of that."""

    alternative: Alternative
    gain: float
    error: float


class Examined(NamedTuple):
    """All that the pass found. losses: nats per hidden token, one each, by the share that is hidden, and "shuffled".
    answers: the ten sentences as the model fills them in. load_NE: tokens of the text that each expert got."""

    weights: Collector
    losses: dict[str, np.ndarray]
    answers: list[tuple[str, str]]
    load_NE: np.ndarray
    trials: list[Trial]
    seconds: float


class _Texts(NamedTuple):
    by_name: dict[str, Rows]
    scored: Rows  # what repairs are judged by: 15% and 50% hidden
    sentences: Rows


def _texts(tokens: Tokens, length: int) -> _Texts:
    ids: dict[str, Any] = {"length": length, "mask_id": tokens.mask_id, "pad_id": tokens.pad_id}
    texts = questions.paragraphs(tokens.encode)
    by_name = {f"{rate:.0%}": questions.masked(texts, rate, **ids) for rate in RATES}
    by_name["shuffled"] = questions.masked(texts, RATES[0], is_shuffled=True, **ids)
    pair = [by_name[f"{rate:.0%}"] for rate in RATES[:2]]
    scored = Rows(*(np.concatenate(both) for both in zip(*pair, strict=True)))
    return _Texts(by_name, scored, questions.sentences(tokens.encode, **ids))


def _joined(parts: Sequence[Rows]) -> Rows:
    return Rows(*(np.concatenate(own) for own in zip(*parts, strict=True)))


class _Pass:
    """The readings that are on their way through the layers."""

    def __init__(self, checkpoint: Checkpoint, tokens: Tokens, tries: str) -> None:
        self.config, self.tries = checkpoint.model_config, tries
        self.dtype = jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
        self.tokens = tokens
        self.texts = _texts(tokens, min(questions.LENGTH, self.config.max_position_embeddings))
        self.checkpoint = checkpoint
        self.embedding_VD: np.ndarray | None = checkpoint.top("embedding")
        self.final_norm_D = checkpoint.top("final_norm")
        self.others = {name: rows for name, rows in self.texts.by_name.items() if name not in SCORED}
        self.rest = self._begun(_joined([*self.others.values(), self.texts.sentences]))
        self.scored = self._begun(self.texts.scored)
        self.live: list[tuple[Alternative, Reading]] = []
        if tries != "none":
            for x in alternatives.of_config(self.config):
                self.live.append((x, self._begun(self.texts.scored, x.config, x.shift)))
        self.embedding_VD = None  # every reading has its own rows of it
        self.aim_TD = experts.aim(self.texts.scored, self.final_norm_D, self.head()) if tries == "layers" else None
        self.loads: list[np.ndarray] = []
        self.orders: dict[int, Edit] = {}
        self.biases: dict[int, Edit] = {}

    def _begun(self, rows: Rows, config: ModelConfig | None = None, shift: int = 0) -> Reading:
        assert self.embedding_VD is not None
        return begin(config or self.config, rows, self.embedding_VD, self.dtype, shift)

    def head(self) -> jax.Array:
        """The head [D, V], read anew: it is asked at both ends of the pass, and not held while layers are."""
        return jnp.asarray(self.checkpoint.top("head"))

    def layer(self, n: int, group: str, weights: Weights) -> None:
        """Every reading goes through layer n."""
        held: LayerWeights = {name: jnp.asarray(value) for name, value in weights.items()}
        if self.tries != "none":
            self.live += [(x, self.scored) for x in self._starting(n, group, held)]
        for i, (alternative, reading) in enumerate(self.live):
            is_edited = alternative.edit is not None and n in alternative.layers
            own = alternative.edit(n, held) if is_edited and alternative.edit else held
            self.live[i] = alternative, through(reading, group, own)[0]
        self.rest, _ = through(self.rest, group, held)
        self.scored, load_E = through(self.scored, group, held)
        if load_E is not None:
            self.loads.append(np.asarray(load_E))

    def _starting(self, n: int, group: str, held: LayerWeights) -> Iterator[Alternative]:
        """The repairs that differ from the checkpoint from layer n on."""
        config = self.config
        first_moe = config.first_k_dense_replace
        layers = range(0, first_moe) if group == "dense" else range(first_moe, config.num_hidden_layers)
        if n == layers.start:
            yield from alternatives.of_layers(config, layers, held)
        if self.tries == "layers" and len(layers) > 1:
            yield from alternatives.of_layers(config, range(n, n + 1), held)
        if group == "dense":
            return
        if n == layers.start:
            yield from alternatives.of_orders(config, layers)
            said = "the experts of the layers do not stand where their routers send their tokens"
            yield Alternative(PERMUTED, said, config, layers, alternatives.by_layer(self.orders))
            said = "expert_bias was dropped: with biases that even the experts' load the loss is lower"
            yield Alternative(BIAS_DROPPED, said, config, layers, alternatives.by_layer(self.biases))
        if not np.asarray(held["expert_bias"]).any():
            self.biases[n] = alternatives.with_bias(experts.evening_bias(self.scored, held))
        if self.aim_TD is not None:
            order_E = experts.best_order(self.scored, held, self.aim_TD)
            if (order_E != np.arange(len(order_E))).any():
                self.orders[n] = alternatives.reordered(order_E)
                said = f"layer {n}: the experts do not stand where the router sends their tokens"
                yield Alternative(PERMUTED, said, config, range(n, n + 1), self.orders[n])

    def losses(self, head_DV: jax.Array) -> tuple[dict[str, np.ndarray], list[tuple[str, str]]]:
        """(nats by text, the sentences as they were and as they are filled in)."""
        scored = self._cut(self.scored, [self.texts.by_name[name] for name in SCORED], head_DV)
        found = dict(zip(SCORED, scored, strict=True))
        *rest, sentences = self._cut(self.rest, [*self.others.values(), self.texts.sentences], head_DV)
        found |= dict(zip(self.others, rest, strict=True))
        nll = {name: own[0] for name, own in found.items()}
        return nll, self._filled(sentences[1])

    def _cut(self, reading: Reading, parts: Sequence[Rows], head_DV: jax.Array) -> list[tuple[np.ndarray, np.ndarray]]:
        nll, best = answers(reading, self.final_norm_D, head_DV)
        ends = np.cumsum([part.is_asked.sum() for part in parts])[:-1]
        return list(zip(np.split(nll, ends), np.split(best, ends), strict=True))

    def _filled(self, best: np.ndarray) -> list[tuple[str, str]]:
        rows, decode = self.texts.sentences, self.tokens.decode
        filled = rows.targets.copy()
        filled[rows.is_asked] = best
        pairs = []
        for own, targets, is_asked, segment_ids in zip(
            filled, rows.targets, rows.is_asked, rows.segment_ids, strict=True
        ):
            place = np.flatnonzero(is_asked)
            parts = own[: place[0]], own[place], own[place[-1] + 1 : segment_ids.sum()]
            before, answer, behind = (decode(part.tolist()) for part in parts)
            pairs.append((decode(targets[place].tolist()), f"{before}[{answer}]{behind}"))
        return pairs

    def trials(self, head_DV: jax.Array) -> list[Trial]:
        """What each repair saves, the best first."""
        base, _ = answers(self.scored, self.final_norm_D, head_DV)
        found = []
        for alternative, reading in self.live:
            nll, _ = answers(reading, self.final_norm_D, head_DV, alternative.head_shift)
            gain = base.astype(np.float64) - nll
            gain = np.where(np.isfinite(gain), gain, 0)  # where the reading itself is not finite
            found.append(Trial(alternative, *mean_and_error(gain.tolist())))
        return sorted(found, key=lambda trial: -trial.gain)


def examine(checkpoint: Checkpoint, tokens: Tokens | None, tries: str) -> Examined:
    """Reads the checkpoint once.

    Args:
      checkpoint: opened.
      tokens: None where there is no tokenizer: then nothing is asked.
      tries: which repairs are tried: "none"; "whole", the same one in all layers; "layers", also in each layer alone,
        and whether experts stand where their router sends tokens.

    Raises:
      ValueError: for weights of a run that are not those that were saved.
    """
    start = time.perf_counter()
    config = checkpoint.model_config
    collector = Collector(config)
    special = {"mask": tokens.mask_id if tokens else config.mask_token_id, "pad": config.pad_token_id}
    num_used = tokens.num_used if tokens else 0
    collector.add_rows("embedding", checkpoint.top("embedding"), special, num_used)
    collector.add_rows("head", checkpoint.top("head").T, special, num_used)
    collector.add("final_norm", checkpoint.top("final_norm"))
    walk = None if tokens is None else _Pass(checkpoint, tokens, tries)
    with Progress(checkpoint.num_bytes, "doctor") as bar:
        for n, group, weights in checkpoint.layers():
            collector.add_layer(n, weights)
            if walk is not None:
                walk.layer(n, group, weights)
            bar.update(sum(value.nbytes for value in weights.values()))
            del weights  # before the next layer is read
    checkpoint.finish()
    if walk is None:
        nothing = np.zeros((0, config.num_experts))
        return Examined(collector, {}, [], nothing, [], time.perf_counter() - start)
    head_DV = walk.head()
    losses, filled = walk.losses(head_DV)
    trials = walk.trials(head_DV)
    return Examined(collector, losses, filled, np.array(walk.loads), trials, time.perf_counter() - start)
