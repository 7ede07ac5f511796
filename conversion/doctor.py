"""`doctor`: what is wrong with a checkpoint, said before anyone pays for a run that starts from it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from anyorder_jax import files, run_directory
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.directory import ModelDirectory, scan
from anyorder_jax.pretrained.shards import STORED_NAMES
from conversion.health.examine import Examined, Tokens, examine
from conversion.health.findings import FAULT, NOTE, Finding
from conversion.health.judge import Verdict, active_parameters, judge
from conversion.health.layers import Checkpoint

TRIES = ("none", "whole", "layers")
SMALL_PARAMETERS = 1_000_000_000


def doctor(
    path: str | Path, *, tokenizer: str | Path = "", tries: str = "", json_path: str = "", is_dry_run: bool = False
) -> int:
    """Examines a checkpoint, prints what it found, and says whether to train from it.

    Args:
      path: a split or merged directory, a run, or one of its steps.
      tokenizer: directory of the tokenizer; "" is the checkpoint's own.
      tries: see `examine`; "": "layers" up to a billion parameters, else "whole" on an accelerator and "none" on a CPU.
      json_path: a file for everything that was found ("-": stdout, in place of the words).
      is_dry_run: reads headers only.

    Returns:
      0 for a healthy checkpoint, 1 for one that is not.

    Raises:
      ValueError, OSError: for what is no checkpoint of LLaDA2.x, or a tokenizer that does not open.
    """
    early = [] if run_directory.is_run(path) else _of_headers(scan(path))
    if any(finding.weight == FAULT for finding in early):
        return _tell(path, {}, Verdict(False, f"damaged: {early[0].sentence}", early), json_path)
    checkpoint = Checkpoint(path)
    tokens = _open_tokenizer(Path(tokenizer or checkpoint.tokenizer), checkpoint.model_config, is_named=bool(tokenizer))
    tries = tries or _default_tries(checkpoint.num_parameters)
    if is_dry_run:
        print(f"would read {path} ({checkpoint.num_bytes / 1e9:.2f} GB), a layer at a time, repairs tried: {tries}")
        return 0
    found = examine(checkpoint, tokens, tries)
    verdict = judge(found, checkpoint.model_config)
    if not run_directory.is_run(path):
        early += _zero_shards(scan(path), found)
    verdict = verdict._replace(findings=[*verdict.findings, *early])
    return _tell(path, _content(checkpoint, found, tries), verdict, json_path)


def _default_tries(num_parameters: int) -> str:
    if num_parameters <= SMALL_PARAMETERS:
        return "layers"
    return "none" if jax.default_backend() == "cpu" else "whole"


def _of_headers(model: ModelDirectory) -> list[Finding]:
    """What names, shapes, dtypes and config.json tell."""
    try:
        ModelConfig.from_hf(dict(model.config))
    except ValueError as error:
        return [Finding(FAULT, "config", str(error))]
    amiss = model.differences()
    if amiss:
        told = names.describe(amiss, model.places)
        turned = [
            name for name, tensor in model.tensors.items()
            if name in model.places and tensor.shape != model.places[name].shape
            and tensor.shape == model.places[name].shape[::-1]
        ]  # fmt: skip
        told += f" {turned[0]} and {len(turned) - 1} more are transposed." if len(turned) > 1 else ""
        told += f" {turned[0]} is transposed." if len(turned) == 1 else ""
        return [Finding(FAULT, "transposed" if turned else "names and shapes", told)]
    said = next((str(model.config[key]) for key in ("torch_dtype", "dtype") if key in model.config), "")
    stored = sorted({t.dtype for name, t in model.tensors.items() if not name.endswith("expert_bias")})
    if said in STORED_NAMES and stored != [STORED_NAMES[said]]:
        return [Finding(NOTE, "dtype", f"config.json says {said}, the tensors are {', '.join(stored)}")]
    return []


def _zero_shards(model: ModelDirectory, found: Examined) -> list[Finding]:
    """Shards that hold zeros alone: files that were made and never filled."""
    by_file: dict[str, list[bool]] = {}
    for name, tensor in model.tensors.items():
        by_file.setdefault(tensor.path.name, []).append(found.weights.is_zero(name))
    files_of_zeros = [file for file, are_zero in by_file.items() if all(are_zero)]
    return [Finding(NOTE, "zeros", f"{file} holds zeros alone: fetch it again") for file in files_of_zeros]


def _open_tokenizer(folder: Path, config: ModelConfig, is_named: bool) -> Tokens | None:
    """The tokenizer in a directory; None where there is none, or one that cannot write the text, and none was named."""
    from anyorder_jax.data.tokenization import Vocabulary
    from anyorder_jax.health import questions
    from anyorder_jax.rendering.text import TextRenderer

    try:
        vocabulary = Vocabulary.from_directory(folder, TextRenderer())
        if vocabulary.size > config.vocab_size:
            raise ValueError(f"{folder}: has {vocabulary.size} tokens, the model {config.vocab_size}. It is another's.")
        questions.paragraphs(lambda text: vocabulary.encode_text(text)[0])
    except (ValueError, OSError) as error:
        if is_named:
            raise
        print(f"note: nothing is asked: {error} Name one with --tokenizer.", file=sys.stderr)
        return None
    return Tokens(
        lambda text: vocabulary.encode_text(text)[0], vocabulary.decode_text, vocabulary.mask_id, vocabulary.pad_id,
        vocabulary.size,
    )  # fmt: skip


def _content(checkpoint: Checkpoint, found: Examined, tries: str) -> dict[str, Any]:
    """What was measured, for JSON and for the words."""
    config = checkpoint.model_config
    load = found.load_NE / np.maximum(found.load_NE.mean(-1, keepdims=True), 1e-9)
    return {
        "parameters": checkpoint.num_parameters, "active_parameters": active_parameters(config), "tries": tries,
        "dtype": checkpoint.dtype, "seconds": round(found.seconds, 1),
        "rotary": {"dims": config.rotary_dim, "head_dim": config.head_dim, "base": config.rope_theta},
        "rms_norm_eps": config.rms_norm_eps, "ln_vocabulary": math.log(config.vocab_size),
        "loss": {name: float(nll.mean()) for name, nll in found.losses.items()},
        "weights": found.weights.table(), "rows": found.weights.rows,
        "experts_shared_directions": found.weights.shared,
        "load": [
            {"layer": config.first_k_dense_replace + n, "busiest": float(own.max()), "dead": int((own == 0).sum())}
            for n, own in enumerate(load)
        ],
        "infilled": [{"expected": expected, "text": text} for expected, text in found.answers],
        "repairs": [
            {"fault": t.alternative.fault, "reading": t.alternative.sentence, "gain": t.gain, "error": t.error}
            for t in found.trials[:20]
        ],
    }  # fmt: skip


def _tell(path: str | Path, content: dict[str, Any], verdict: Verdict, json_path: str) -> int:
    result = {
        "checkpoint": str(path), "is_healthy": verdict.is_healthy, "verdict": verdict.sentence,
        "findings": [finding._asdict() for finding in verdict.findings], **content,
    }  # fmt: skip
    text = json.dumps(result, indent=2, ensure_ascii=False) + "\n"
    if json_path == "-":
        print(text, end="")
    else:
        if json_path:
            files.write_whole(Path(json_path), text)
        print("\n".join(_lines(path, content, verdict)))
    return 0 if verdict.is_healthy else 1


def _lines(path: str | Path, content: dict[str, Any], verdict: Verdict) -> list[str]:
    lines = [f"{path}"]
    if content:
        rotary = content["rotary"]
        lines += [
            f"{content['parameters']:,} parameters ({content['active_parameters']:,} active), {content['dtype']}; "
            f"rotary over {rotary['dims']} of {rotary['head_dim']} dims, base {rotary['base']:g}; epsilon "
            f"{content['rms_norm_eps']:g}; read in {content['seconds']} s",
            f"{'kind of weight':<34} {'tensors':>7}  {'rms: least, middle, most':<28} {'drawn':>7}  spectrum (or 1)",
        ]  # fmt: skip
        for row in content["weights"]:
            rms, spectrum = (" ".join(f"{x:.3g}" for x in row[key]) for key in ("rms", "spectrum"))
            spectrum = spectrum if row["spectrum"][2] else ""
            lines.append(f"{row['kind']:<34} {row['tensors']:7d}  {rms:<28} {row['rms_as_drawn']:7.3g}  {spectrum}")
        for name, told in content["rows"].items():
            special = ", ".join(f"{what}: {state}" for what, state in told["special"].items())
            lines.append(f"rows of the {name}: {told['zero']} zero, {told['equal']} equal to another; {special}")
        if content["load"]:
            busiest = max(content["load"], key=lambda own: own["busiest"])
            dead = sum(own["dead"] for own in content["load"])
            lines.append(
                f"load of the experts: at most {busiest['busiest']:.1f} times the mean (layer {busiest['layer']}); "
                f"{dead} got no token of the text"
            )
    if content and content["loss"]:
        losses = "   ".join(f"{name} hidden {x:.2f}" for name, x in content["loss"].items() if name != "shuffled")
        lines.append(f"nats per hidden token: {losses}   15% of a shuffled text {content['loss']['shuffled']:.2f}   "
                     f"guessing {content['ln_vocabulary']:.2f}")  # fmt: skip
        lines += [f"  {own['text']!r}  (was {own['expected']!r})" for own in content["infilled"]]
    lines += [f"{finding.weight}: {finding.name}: {finding.sentence}" for finding in verdict.findings]
    return [*lines, f"verdict: {verdict.sentence}"]
