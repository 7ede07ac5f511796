"""A tokenizer as files: which of a model directory's are its tokenizer's, and what transformers 4 and 5 both open.

transformers 5 writes `"tokenizer_class": "TokenizersBackend"` and a list of `extra_special_tokens`; version 4 opens
neither, and servers use it. A model's own files are kept byte for byte, so that they open wherever the model does.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG_NAME = "tokenizer_config.json"
BACKEND_NAME = "tokenizer.json"
MASK_NAME = "config.json"
"""Beside a copied tokenizer whose files do not name the mask token: {"mask_token_id": id}, as in a model's config."""

_PREFIXES = (
    "tokenizer", "special_tokens_map", "added_tokens", "vocab", "merges", "chat_template", "additional_chat_templates",
    "spiece", "sentencepiece",
)  # fmt: skip


def is_tokenizer_file(relative: Path) -> bool:
    """Whether a file of a model directory (its path in it) belongs to the tokenizer."""
    return relative.parts[0].startswith(_PREFIXES)


def list_files(directory: Path) -> dict[Path, Path]:
    """Path in the directory -> path, of the tokenizer's files."""
    names = {path.relative_to(directory): path for path in sorted(directory.rglob("*")) if path.is_file()}
    return {relative: path for relative, path in names.items() if is_tokenizer_file(relative)}


def copy(source: Path, target: Path, mask_id: int | None) -> None:
    """Copies a tokenizer's files as they are; `mask_id`: of the mask token where they do not name one."""
    target.mkdir(parents=True, exist_ok=True)
    if source.resolve() != target.resolve():
        for relative, path in list_files(source).items():
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / relative)
    note_mask_id(target, mask_id)


def note_mask_id(directory: Path, mask_id: int | None) -> None:
    """Writes beside a tokenizer's files which id the mask token has (None: they say it themselves)."""
    if mask_id is not None:
        (directory / MASK_NAME).write_text(json.dumps({"mask_token_id": mask_id}) + "\n", encoding="utf-8")


def is_portable(values: Mapping[str, Any]) -> bool:
    """Whether transformers 4 knows what these values of tokenizer_config.json say."""
    is_known = values.get("tokenizer_class") != "TokenizersBackend"
    return is_known and not isinstance(values.get("extra_special_tokens"), list)


def portable_text(values: Mapping[str, Any]) -> str:
    """The text of a tokenizer_config.json that says the same to both versions."""
    changed = {**values, "tokenizer_class": "PreTrainedTokenizerFast"}
    for key in ("backend", "is_local", "local_files_only"):  # of the process that wrote it
        changed.pop(key, None)
    if isinstance(changed.get("extra_special_tokens"), list):
        extra = [*(changed.get("additional_special_tokens") or ()), *changed.pop("extra_special_tokens")]
        changed["additional_special_tokens"] = list(dict.fromkeys(extra))
    # else version 4 gives models of one segment `token_type_ids` too
    changed.setdefault("model_input_names", ["input_ids", "attention_mask"])
    return json.dumps(changed, indent=2, ensure_ascii=False) + "\n"


def write(tokenizer: Any, directory: Path) -> None:
    """Writes a transformers tokenizer that has no files of its own."""
    tokenizer.save_pretrained(directory)
    file = directory / CONFIG_NAME
    text = portable_text(json.loads(file.read_text(encoding="utf-8")))
    file.write_text(text, encoding="utf-8")
