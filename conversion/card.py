"""The model card of an export: what it is, how to load it, the recipe, the data, and the figures of the run."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from anyorder_jax import metrics
from anyorder_jax.config import Config, parse_sources, path_keys
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.pretrained import names
from anyorder_jax.pretrained.tree import leaves

CODE = Path(__file__).parent / "code"
"""What is written into an export as it is, and the texts of its card."""

_KEPT_METADATA = ("license", "license_name", "license_link", "base_model", "language")
"""Lines of the source's own card that hold for what was made of it."""

_SHOWN = ("action_accuracy", "cell_accuracy", "nll_per_cell", "token_accuracy", "nll_per_token")
"""Measures of a report that the card shows."""

_ELSEWHERE = ("mesh.", "log.", "checkpoint.", "data.cache_dir", "data.num_threads", "data.prefetch")
"""Settings that say where and how a run ran, not what was learned."""


class Exported(NamedTuple):
    """What a card is about. run: its directory. data: the fingerprint of the training data. dtype: of the tensors.
    source_card: the text of the base model's own card, or ""."""

    run: Path
    step: int
    config: Config
    model_config: ModelConfig
    data: Mapping[str, Any]
    dtype: str
    source_card: str = ""


def model_card(exported: Exported, name: str, notes: Sequence[str] = ()) -> str:
    """The card of a whole model.

    Args:
      name: of the directory that is written.
      notes: more lines for its end.
    """
    text = (CODE / "load_model.md").read_text(encoding="utf-8")
    load = Template(text).substitute(where=json.dumps(name), dtype=exported.dtype, how=_how(exported.config))
    total, active = _num_parameters(exported.model_config)
    about = (
        f"A LLaDA2-MoE that fills holes anywhere in a text: {_size(total)} parameters, of which a token meets "
        f"{_size(active)}.{_started(exported.config)}"
    )
    return _card(exported, name, "transformers", about, load, notes)


def adapter_card(exported: Exported, name: str) -> str:
    """The card of a PEFT adapter."""
    base = Path(exported.config.model.path).name
    load = Template((CODE / "load_adapter.md").read_text(encoding="utf-8")).substitute(
        where=json.dumps(name), base=f" `{base}`" if base else "", base_path=json.dumps(base or "BASE"),
        how=_how(exported.config),
    )  # fmt: skip
    lora = exported.config.lora
    about = f"LoRA factors of rank {lora.rank} for a LLaDA2-MoE, on: {lora.targets}.{_started(exported.config)}"
    return _card(exported, name, "peft", about, load, ())


def _card(exported: Exported, name: str, library: str, about: str, load: str, notes: Sequence[str]) -> str:
    kept = _metadata(exported.source_card)
    notes = list(notes)
    if not any(line.startswith("license:") for line in kept):
        notes.append(
            "No licence is stated here: that of the base model and of the data holds. Add it before you share."
        )
    text = Template((CODE / "card.md").read_text(encoding="utf-8")).substitute(
        library=library, metadata="\n".join(kept), name=name, about=about, load=load.strip(), step=exported.step,
        run=exported.run.name, settings=_settings(exported.config), data=_data(exported),
        figures=_figures(exported.run, exported.step), notes="\n".join(f"- {note}" for note in notes),
    )  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", text.replace("text-generation\n\ntags", "text-generation\ntags")).strip() + "\n"


def _how(config: Config) -> str:
    return f", causal_block_size={config.train.block_size}" if config.train.objective == "block_diffusion" else ""


def _started(config: Config) -> str:
    """Places on the disk of whoever trained it are nobody else's business: last names only."""
    if config.model.path:
        return f" It was trained from the weights of `{Path(config.model.path).name}`."
    return f" It was trained from random weights (shape `{config.model.preset}`)."


def _size(number: int) -> str:
    for unit, name in ((1e9, " billion"), (1e6, " million")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return f"{number:,}"


def _num_parameters(model_config: ModelConfig) -> tuple[int, int]:
    """(all, those that a token meets)."""
    total = active = 0
    for leaf in leaves(names.Dims.from_config(model_config.to_hf(), "the model"), "bfloat16"):
        size = leaf.num_bytes // leaf.dtype.itemsize
        total += size
        is_routed = leaf.rows[0].merged_hf != ""
        active += size * model_config.num_experts_per_tok // model_config.num_experts if is_routed else size
    return total, active


def _metadata(source_card: str) -> list[str]:
    """Lines of YAML that the source's card begins with and that hold for this one too."""
    head = re.match(r"---\n(.*?)\n---\n", source_card, re.DOTALL)
    kept, is_kept = [], False
    for line in head.group(1).split("\n") if head else ():
        if not line.startswith((" ", "-")):
            is_kept = line.split(":")[0] in _KEPT_METADATA
        if is_kept:
            kept.append(line)
    return kept


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _changed(value, defaults[key], f"{where}{key}.")
        elif value != defaults[key]:
            yield where + key, value


def _settings(config: Config) -> str:
    values, defaults = dataclasses.asdict(config), dataclasses.asdict(Config())
    found = [(key, value) for key, value in _changed(values, defaults) if not key.startswith(_ELSEWHERE)]
    if not found:
        return "Nothing."
    return _table(("setting", "value"), [(f"`{key}`", f"`{_without_folders(key, value)}`") for key, value in found])


def _without_folders(key: str, value: Any) -> Any:
    """A setting's value; of paths the last names only."""
    if key == "data.sources" and value:
        return ",".join(f"{Path(folder).name}:{weight:g}" for folder, weight in parse_sources(value).items())
    return Path(value).name if key in path_keys() else value


def _data(exported: Exported) -> str:
    data, told = exported.config.data, exported.data
    if not told:
        return "The run says nothing of them: it was converted, or it is one of the first versions'."
    place = "data.sources" if data.sources else "data.path"
    rows = [
        ("environment", told.get("environment") or "none: recorded text"),
        ("folder", _without_folders(place, data.sources or data.path) or "collected by the program itself"),
        ("training episodes", data.num_episodes or "all"),
        ("held out for validation, test", f"{data.num_validation_episodes}, {data.num_test_episodes}"),
    ]
    if "shards_sha256" in told:
        rows.append(("SHA-256 of its shards", f"`{told['shards_sha256']}`"))
    return _table(("", ""), rows)


def _figures(run: Path, step: int) -> str:
    """What the run's own log and report say of this step; nothing is measured here."""
    found = []
    for split in ("train", "validation"):
        file = run / "metrics" / f"{split}.jsonl"
        lines = [line for line in metrics.read_jsonl(file) if line["step"] == step] if file.is_file() else []
        for line in lines[-1:]:
            shown = [name for name in line if name == "loss" or name.startswith(("nll/", "accuracy/"))]
            found += [(split, name, f"{line[name]:.4g}", "") for name in shown]
    found += list(_reported(run / "report" / "report.json", step))
    if not found:
        return "None were kept beside the run."
    return _table(("from", "measure", "value", "95% interval over episodes"), found)


def _reported(file: Path, step: int) -> Iterator[tuple[str, str, str, str]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["about"]["step"] != step:
            return
        rows = [(row["question"] + f", {row['role']}", row["measure"], row) for row in content.get("summary", ())
                if row["predictor"] == "model"]  # fmt: skip
        rows += [(question, measure, estimate) for question, by_name in content.get("world_model", {}).items()
                 for measure, estimate in by_name.get("model", {}).items()]  # fmt: skip
        rows = [row for row in rows if row[1] in _SHOWN]
        rows += [(f"acting: {policy}", "success", estimates["success"])
                 for policy, estimates in content.get("acting", {}).items()]  # fmt: skip
        for question, measure, e in rows:
            interval = "" if e["low"] is None else f"{e['low']:.3g} to {e['high']:.3g}"
            yield question, measure.replace("_", " "), f"{e['value']:.4g}", f"{interval} (n = {e['count']})".strip()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # no report, or another version's: the log is shown


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
