"""Loads exports of `to_hf --with_code` as somebody else would, and compares with what our model computed of them.

    python tests/exports.py DIRECTORY                        here, with JAX
    python benchmarks/export_elsewhere.py DIRECTORY          there: PyTorch and transformers (and PEFT), nothing of ours

This is the one place where code out of a model directory is run: it is the file that we have just written there.
`export_elsewhere.sh` does both for transformers 4.57 and 5. Exit code 1 when something differs.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 1e-5
"""Of logits in float32, relative to the largest."""


def difference(found: torch.Tensor, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest number expected."""
    return float(np.abs(found.numpy() - expected).max() / np.abs(expected).max())


def open_model(directory: Path) -> Any:
    """As a user elsewhere does it: `trust_remote_code` runs the one file that this program has just written there."""
    return AutoModelForCausalLM.from_pretrained(directory, trust_remote_code=True, dtype=torch.float32).eval()


@torch.no_grad()
def logits_differ(model: Any, given: dict[str, Any]) -> float:
    """Of full attention with padding right and left, and of block-causal attention."""
    tokens, lengths = torch.from_numpy(given["tokens"]).long(), given["lengths"]
    mask = (torch.arange(tokens.shape[1])[None] < torch.from_numpy(lengths)[:, None]).long()
    right = model(tokens, attention_mask=mask).logits
    differences = [difference(model(tokens, causal_block_size=int(given["block"])).logits, given["causal_logits"])]
    for row, length in enumerate(lengths):
        expected = given["logits"][row, :length]
        shift = tokens.shape[1] - int(length)
        rolled = (x[row : row + 1].roll(shift, 1) for x in (tokens, mask))
        left = model(next(rolled), attention_mask=next(rolled)).logits[0, shift:]
        differences += [difference(right[row, :length], expected), difference(left, expected)]
    return max(differences)


def fillings(model: Any, given: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """(what, whether the tokens, the passes and the probabilities are ours)."""
    how = {
        "threshold": float(given["threshold"]), "block_length": int(given["block"]),
        "mask_token_id": int(given["mask"]), "end_token_ids": (int(given["end"]),),
    }  # fmt: skip
    holed, lengths = torch.from_numpy(given["infill_holed"]).long(), torch.from_numpy(given["lengths"])
    filled = model.infill(holed, (torch.arange(holed.shape[1])[None] < lengths[:, None]).long(), **how)
    is_same = np.array_equal(filled.tokens_BL.numpy(), given["infill_filled"])
    is_same &= np.array_equal(filled.passes_B.numpy(), given["infill_passes"])
    sure = np.take_along_axis(filled.probability_BL.numpy(), given["infill_place"], 1)
    yield "infill", bool(is_same and np.abs(sure - given["infill_probability"]).max() < 1e-4)
    num_new = given["generate_place"].shape[1]
    prompt = torch.from_numpy(given["generate_holed"])[:, :-num_new].long()
    answer = model.generate(prompt, max_new_tokens=num_new, **how)
    yield "generate", bool(np.array_equal(answer.numpy(), given["generate_filled"]))


def tokenizer_is_same(directory: Path, trusts: bool, given: dict[str, Any]) -> bool:
    """It needs no code; without a word on trust, transformers 5 would ask, because of config.json."""
    tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=trusts)
    text = tokenizer.apply_chat_template(given["chat"], tokenize=False, add_generation_prompt=True)
    ids = [tokenizer(each).input_ids for each in given["texts"]]
    chat_ids = tokenizer(text, add_special_tokens=False).input_ids
    return bool(ids == given["ids"] and text == given["chat_text"] and chat_ids == given["chat_ids"])


@torch.no_grad()
def adapter_differs(directory: Path, given: dict[str, Any]) -> float:
    """The adapter in PEFT on the base model as it was published, beside the export with the factors folded in."""
    from peft import PeftModel

    spec = importlib.util.spec_from_file_location("modeling_llada2", directory / "adapter" / "modeling_llada2.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["modeling_llada2"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    base = module.LLaDA2MoeModelLM.from_pretrained(directory / "base", dtype=torch.float32)
    tokens, length = torch.from_numpy(given["tokens"]).long()[:1], int(given["lengths"][0])
    plain = difference(base(tokens[:, :length]).logits[0], given["logits"][0])
    assert plain > 100 * TOLERANCE, "the base alone gives the same: the adapter is not seen"
    model = PeftModel.from_pretrained(base, directory / "adapter").eval()
    return difference(model(input_ids=tokens[:, :length]).logits[0], given["logits"][0])


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    return function(*arguments), time.perf_counter() - start


def main(directory: Path) -> int:
    """Prints a line for each comparison; returns the exit code."""
    torch.set_num_threads(1)  # small models: threads would wait for one another on a busy machine
    print(f"transformers {transformers.__version__}, torch {torch.__version__}, float32")
    bad = 0

    def tell(what: str, is_good: bool, told: str) -> None:
        nonlocal bad
        bad += not is_good
        print(f"{'same ' if is_good else 'OTHER'}  {what:28} {told}")

    for file in sorted((directory / "expected").glob("*.npz")):
        given = dict(np.load(file))
        model, seconds = timed(open_model, directory / file.stem)
        off = logits_differ(model, given)
        tell(f"{file.stem}: logits", off <= TOLERANCE, f"{off:.1e} of the largest, loaded in {seconds:.2f} s")
        for what, is_same in fillings(model, given):
            tell(f"{file.stem}: {what}", is_same, "tokens")
    words = json.loads((directory / "expected" / "tokenizer.json").read_text(encoding="utf-8"))
    for trusts in (False, True):
        is_same = tokenizer_is_same(directory / "chat_split", trusts, words)
        tell("tokenizer", is_same, f"ids, chat template, trust_remote_code={trusts}")
    if importlib.util.find_spec("peft") is None:
        print("left out: the adapter (peft is not installed)")
    else:
        off = adapter_differs(directory, dict(np.load(directory / "expected" / "lora_split.npz")))
        tell("adapter in PEFT", off <= TOLERANCE, f"{off:.1e} of the largest, beside the folded export")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
