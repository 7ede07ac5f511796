"""What the floor plan promised not to move: BabyAI's ids, masks and packed rows byte for byte, and 30 losses.

`tests/golden/promises.json` holds what `measured` gave before text became the general case.
"""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from anyorder_jax import keys
from anyorder_jax.config import ORDERS, MaskingConfig, defaults, freeze
from anyorder_jax.data import pipeline, units
from anyorder_jax.data.tokenization import Vocabulary
from anyorder_jax.masking.sampler import AnyOrderMaskSampler
from anyorder_jax.model import presets
from corridor import BPE_DIRECTORY
from runs import Trainer

pytest.importorskip("minigrid", reason="needs the extra `babyai`")

from anyorder_jax.environments import registry
from anyorder_jax.environments.play import play_episode

PROMISED = json.loads((Path(__file__).parent / "golden" / "promises.json").read_text(encoding="utf-8"))
ENVIRONMENT = "BabyAI-GoToLocal-v0"
NUM_LOSSES = 30


@functools.cache
def episodes():
    environment = registry.make_environment(ENVIRONMENT)
    return [play_episode(environment, seed, noise=0.2) for seed in range(12)]


def digest(arrays):
    """SHA-256 over dtypes, shapes and bytes."""
    total = hashlib.sha256()
    for array in arrays:
        total.update(f"{array.dtype.str} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def vocabulary_of(profile, tokenizer):
    codec = registry.make_codec(ENVIRONMENT, profile)
    return codec, Vocabulary.from_directory(BPE_DIRECTORY, codec) if tokenizer else Vocabulary.builtin(codec)


def ids_of(profile, tokenizer):
    codec, vocabulary = vocabulary_of(profile, tokenizer)
    wholes = [units.tokenise(trajectory, codec, vocabulary) for trajectory in episodes()]
    parts = [units.window(whole, end, 4) for whole in wholes for end in range(whole.num_steps)]
    names = [f.name for f in dataclasses.fields(units.Tokenised) if f.name != "levels"]
    return digest(getattr(x, name) for x in [*wholes, *parts] for name in names)


def masks_of(profile):
    codec, vocabulary = vocabulary_of(profile, "")
    drawn = []
    for order in ORDERS:
        for granularity in ("unit", "cell", "attribute", "token"):
            sampler = AnyOrderMaskSampler(MaskingConfig(order=order, granularity=granularity, rate=0.3, rate_max=0.7))
            for e, trajectory in enumerate(episodes()):
                whole = units.tokenise(trajectory, codec, vocabulary)
                example = units.window(whole, whole.num_steps - 1, 4)
                hidden = sampler(keys.generator(0, "mask", 0, e), example)
                both = hidden, sampler.complement(example, hidden)
                drawn += [x for h in both for x in (h.is_hidden_L, h.is_target_L, np.float64(h.rate))]
    return digest(drawn)


def rows_and_losses():
    codec, vocabulary = vocabulary_of("joint", "")
    config = defaults()
    config.masking.order = "any_order:0.6,causal:0.2,goal:0.1,prefix:0.1"
    config.train.num_steps, config.train.batch_size, config.optimizer.warmup_steps = NUM_LOSSES, 4, 5
    config = freeze(config)
    corpus = pipeline.Corpus.build(episodes(), codec, vocabulary, config.data.window)
    batches = pipeline.make_pipeline(
        config, corpus, AnyOrderMaskSampler(config.masking), mask_id=vocabulary.mask_id, pad_id=vocabulary.pad_id,
        num_steps_total=NUM_LOSSES,
    )  # fmt: skip
    batches = [next(batches) for _ in range(NUM_LOSSES)]
    model = dataclasses.replace(
        presets.get("tiny"), vocab_size=vocabulary.size, pad_token_id=vocabulary.pad_id,
        mask_token_id=vocabulary.mask_id, num_hidden_layers=2,
    )  # fmt: skip
    # `field` is left out: no step of training reads it
    rows = digest(x for batch in batches for name, x in batch._asdict().items() if name != "field")
    return rows, Trainer(config, model_config=model).run(batches)


def measured():
    """What promises.json holds, of the code as it is."""
    rows, losses = rows_and_losses()
    return {
        "ids": {f"{profile} {name}": ids_of(profile, name) for profile in PROFILES for name in TOKENIZERS},
        "masks": {profile: masks_of(profile) for profile in PROFILES},
        "rows": rows,
        "losses": losses,
    }


PROFILES, TOKENIZERS = ("joint", "attributes"), ("", "bpe")


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_token_ids_and_windows_are_the_same_bytes(profile, tokenizer):
    assert ids_of(profile, tokenizer) == PROMISED["ids"][f"{profile} {tokenizer}"]


@pytest.mark.parametrize("profile", PROFILES)
def test_masks_of_every_order_are_the_same_bytes(profile):
    assert masks_of(profile) == PROMISED["masks"][profile]


def test_packed_rows_are_the_same_bytes_and_losses_agree():
    rows, losses = rows_and_losses()
    assert rows == PROMISED["rows"]
    # On the machine that wrote them they agree to 1e-6; another processor sums in another order, and 30 updates
    # of Adam carry its rounding on.
    np.testing.assert_allclose(losses, PROMISED["losses"], rtol=1e-4)
