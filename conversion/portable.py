"""What `to_hf --with_code` adds, so that an export loads where people are: the model in PyTorch, who reads it, a card.

config.json    auto_map -> modeling_llada2.py;  mask_token_id, eos_token_id as the run's tokenizer has them
README.md      the model card; that of the base model stays as README_base.md
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anyorder_jax.config import Config
from anyorder_jax.data import tokenization
from anyorder_jax.rendering.text import TextRenderer
from conversion.card import CODE, Exported, adapter_card, model_card
from conversion.origins import Companions, say
from conversion.writing import Carried

FILE_NAME = "modeling_llada2.py"
CARD_NAME = "README.md"
AUTO_MAP = {
    "AutoConfig": "modeling_llada2.LLaDA2MoeConfig",
    "AutoModel": "modeling_llada2.LLaDA2MoeModel",
    "AutoModelForCausalLM": "modeling_llada2.LLaDA2MoeModelLM",
}


def with_code(companions: Companions, exported: Exported, layout: str, output: Path) -> Companions:
    """The companions of a model, with the code that loads it and a card that says how.

    Args:
      companions: files and settings that go along.
      exported: what is exported.
      layout: "split" or "merged".
      output: the directory that will hold it all.

    Raises:
      ValueError: when the run's tokenizer cannot be read.
    """
    config = companions.config
    if config is None:
        config = exported.model_config.to_hf(is_merged=layout == "merged", dtype=exported.dtype)
    left_out = _old_code(config, companions.carried)
    for path in left_out:
        say(f"{path} of the model is left out: config.json names {FILE_NAME} in its place.")
    carried = {path: file for path, file in companions.carried.items() if path not in left_out}
    carried, exported = _with_base_card(carried, exported)
    carried[Path(FILE_NAME)] = CODE / FILE_NAME
    notes = []
    if layout == "merged":
        notes.append(
            "Experts are merged (`model_type` is `llada2_moe_veomni`): transformers warns that this is no "
            "`llada2_moe`; the code reads both. PEFT adapters want the split layout."
        )
    carried[Path(CARD_NAME)] = model_card(exported, output.resolve().name, notes)
    config = {**config, "auto_map": AUTO_MAP, **token_ids(exported.run, exported.config)}
    return companions._replace(config=config, carried=carried)


def adapter_files(exported: Exported, output: Path) -> Carried:
    """What `--with_code` puts beside a PEFT adapter."""
    return {Path(FILE_NAME): CODE / FILE_NAME, Path(CARD_NAME): adapter_card(exported, output.resolve().name)}


def token_ids(run: Path, config: Config) -> dict[str, Any]:
    """`mask_token_id` and `eos_token_id` (a list, the first one fills, where several tokens end a unit) of the run's
    tokenizer; empty without one."""
    folder = run / "tokenizer"
    if not folder.is_dir():
        return {}
    vocabulary = tokenization.Vocabulary.from_directory(folder, TextRenderer())
    if config.data.frames == "chat":
        vocabulary = vocabulary.with_chat_frames()
    others = sorted(vocabulary.frames.end_ids - {vocabulary.end_id})
    end_ids: int | list[int] = [vocabulary.end_id, *others] if others else vocabulary.end_id
    return {"mask_token_id": vocabulary.mask_id, "eos_token_id": end_ids}


def _old_code(values: Mapping[str, Any], carried: Carried) -> list[Path]:
    """Python files that the model's own `auto_map` names, and nothing else will now."""
    named = values.get("auto_map") or {}
    modules = {str(target).split("--")[-1].split(".")[0] for target in named.values() if isinstance(target, str)}
    files = [Path(f"{module}.py") for module in sorted(modules)]
    return [path for path in files if path in carried and path != Path(FILE_NAME)]


def _with_base_card(carried: Mapping[Path, Path | str], exported: Exported) -> tuple[dict[Path, Path | str], Exported]:
    """The base model's card under another name, and what it says for the new one."""
    found = dict(carried)
    card = found.pop(Path(CARD_NAME), None)
    if card is None:
        return found, exported
    text = card if isinstance(card, str) else card.read_text(encoding="utf-8", errors="replace")
    number, name = 1, "README_base.md"
    while Path(name) in found:
        number, name = number + 1, f"README_base_{number + 1}.md"
    found[Path(name)] = card
    say(f"{CARD_NAME} of the model is kept as {name}: the new one tells of this run.")
    return found, exported._replace(source_card=text)
