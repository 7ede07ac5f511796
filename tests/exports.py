"""Exports with code, and what our model computes of them: `benchmarks/export_elsewhere.py` must find the same there.

python tests/exports.py DIRECTORY        writes DIRECTORY/{a,b,chat,...}_{split,merged}, base, adapter, expected/
"""

import functools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from transformers import AutoTokenizer

import checkpoints
from anyorder_jax import decode
from anyorder_jax.config import Config
from anyorder_jax.model import transformer
from anyorder_jax.model.attention import BlockDiffusion, Segments
from anyorder_jax.pretrained.load import load_params, read_model_config
from conversion.__main__ import main as convert
from corridor import BPE_DIRECTORY
from saved_runs import MODEL, save_run

GOLDEN = Path(__file__).parent / "golden"
LENGTH, BLOCK, THRESHOLD = 24, 4, 0.3
TEXTS = ["go to the red ball", "Ein Ball, ¿dónde?\n\ttab", "<role>HUMAN</role> hi <|role_end|>"]
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes?"}, {"role": "user", "content": "go"}]


def run_verb(*arguments):
    assert convert(list(map(str, arguments))) == 0, arguments


def export(run, output, layout, *more):
    run_verb("to_hf", "--checkpoint", run, "--output_path", output, "--layout", layout, "--with_code", *more)


@functools.cache
def functions(model_config):
    """(logits under full attention with padding, block-causal logits), compiled once for a model's shape."""

    @jax.jit
    def logits(params, tokens_BL, positions_BL, lengths_B):
        segments = Segments((positions_BL < lengths_B[:, None]).astype(jnp.int32))
        return transformer.apply(model_config, params, tokens_BL, positions_BL, segments).logits_BLV

    @jax.jit
    def causal_logits(params, tokens_BL, positions_BL):
        """Those of the clean half of [noisy ; clean]."""
        twice = jnp.tile(tokens_BL, 2), jnp.tile(positions_BL, 2)
        return transformer.apply(model_config, params, *twice, BlockDiffusion(BLOCK)).logits_BLV[:, LENGTH:]

    return logits, causal_logits


def expected_numbers(directory, seed):
    """What our model computes of an exported directory in float32: logits of rows of several lengths, under both kinds
    of attention, and its fillings of two holes a row, and of what follows a prompt."""
    model_config = read_model_config(directory)
    params = load_params(directory, model_config)
    logits, causal_logits = functions(model_config)
    rng = np.random.default_rng(seed)
    mask = model_config.vocab_size - 1 if model_config.mask_token_id is None else model_config.mask_token_id
    tokens_BL = rng.integers(3, model_config.vocab_size - 20, (3, LENGTH)).astype(np.int32)
    lengths_B = np.array([LENGTH, LENGTH - 5, LENGTH - 1], np.int32)
    positions_BL = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), tokens_BL.shape)
    found = {
        "tokens": tokens_BL, "lengths": lengths_B, "mask": mask, "block": BLOCK, "threshold": THRESHOLD,
        "logits": logits(params, tokens_BL, positions_BL, lengths_B),
        "causal_logits": causal_logits(params, tokens_BL, positions_BL),
    }  # fmt: skip
    allowed_V = np.arange(model_config.vocab_size) != mask
    first = rng.integers(1, 4, (3, 1))
    two_holes = np.concatenate([first + np.arange(6), first + 8 + np.arange(5)], 1), lengths_B
    behind = np.tile(np.arange(LENGTH - 11, LENGTH), (3, 1)), np.full(3, LENGTH, np.int32)
    fill = None
    for name, (place_BH, own_lengths) in {"infill": two_holes, "generate": behind}.items():
        is_new = np.diff(place_BH, axis=1, prepend=-9) != 1  # holes side by side are a unit
        offset_BH = place_BH - np.maximum.accumulate(np.where(is_new, place_BH, 0), axis=1)
        block_BH = (offset_BH % BLOCK == 0).cumsum(1) - 1
        holed_BL = tokens_BL.copy()
        np.put_along_axis(holed_BL, place_BH, mask, 1)
        if fill is None:  # what is likeliest in most holes ends units: else no rule about ends would be met
            likeliest_BL = np.asarray(logits(params, holed_BL, positions_BL, lengths_B))[..., :mask].argmax(-1)
            found["end"] = end = np.bincount(np.take_along_axis(likeliest_BL, place_BH, 1).ravel()).argmax()
            fill = decode.make_fill(Config(), model_config, int(end))
        holes = decode.Holes(*(x.astype(np.int32) for x in (place_BH, is_new.cumsum(1), block_BH)))
        seeds_B = np.zeros(len(holed_BL), np.uint32)
        given = (holed_BL, own_lengths, holes, allowed_V[None, None])
        filled = fill(params, *given, THRESHOLD, seeds_B, decode.LIKELIEST)
        full_BL = holed_BL.copy()
        np.put_along_axis(full_BL, place_BH, np.asarray(filled.tokens_BH), 1)
        found |= {
            f"{name}_holed": holed_BL, f"{name}_filled": full_BL, f"{name}_place": place_BH,
            f"{name}_passes": filled.passes_B, f"{name}_probability": filled.probability_BH,
        }  # fmt: skip
    return {key: np.asarray(value) for key, value in found.items()}


def make(directory):
    """Writes everything; see the module."""
    directory = Path(directory)
    for letter in "ab":
        run_verb(
            "to_orbax", "--input_path", GOLDEN / letter / "split_bf16", "--output_path", directory / f"run_{letter}"
        )
        for layout in ("split", "merged"):
            export(directory / f"run_{letter}", directory / f"{letter}_{layout}", layout)
    tensors = {name: x * (1 if "norm" in name else 0.3) for name, x in
               checkpoints.random_tensors(MODEL, np.float32).items()}  # fmt: skip
    base = checkpoints.write(directory / "base", MODEL, tensors)
    for file in BPE_DIRECTORY.iterdir():
        (base / file.name).write_bytes(file.read_bytes())
    export(save_run(directory / "run_chat", base), directory / "chat_split", "split")
    lora = save_run(directory / "run_lora", base, rank=2)
    export(lora, directory / "lora_split", "split")
    export(lora, directory / "adapter", "adapter")
    (directory / "expected").mkdir()
    for number, path in enumerate(sorted(directory.glob("*_split"))):
        numbers = expected_numbers(path, number)
        np.savez(directory / "expected" / f"{path.name}.npz", **numbers)
        if (directory / path.name.replace("split", "merged")).is_dir():
            np.savez(directory / "expected" / f"{path.name.replace('split', 'merged')}.npz", **numbers)
    tokenizer = AutoTokenizer.from_pretrained(directory / "base")
    words = {
        "texts": TEXTS, "ids": [tokenizer(text).input_ids for text in TEXTS], "chat": CHAT,
        "chat_text": tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True),
    }  # fmt: skip
    words["chat_ids"] = tokenizer(words["chat_text"], add_special_tokens=False).input_ids
    (directory / "expected" / "tokenizer.json").write_text(json.dumps(words), encoding="utf-8")


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    make(sys.argv[1])
