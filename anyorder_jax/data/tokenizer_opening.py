"""Opening a tokenizer: that of a Hugging Face model directory, without remote code, and the id of its mask token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from anyorder_jax.data import tokenizer_files

LLADA_MASK = "<|mask|>"
"""How LLaDA2's tokenizer writes the mask token, which neither its settings nor its config.json name."""


def open_tokenizer(directory: Path) -> Any:
    """The transformers tokenizer of a directory.

    Raises:
      ValueError: when it holds none, or one that does not load without remote code.
    """
    from transformers import AutoTokenizer, PreTrainedConfig

    expected = f"Expected {tokenizer_files.BACKEND_NAME} and {tokenizer_files.CONFIG_NAME}"
    names = [str(path) for path in tokenizer_files.list_files(directory)]
    if tokenizer_files.CONFIG_NAME not in names or len(names) == 1:  # transformers would make up the rest
        raise ValueError(
            f"tokenization: {directory} holds no tokenizer. {expected}, found {' and '.join(names) or 'neither'}."
        )
    try:
        # an empty config: that of the model may need remote code, and its tokenizer does not need it
        tokenizer = AutoTokenizer.from_pretrained(
            directory, config=PreTrainedConfig(), trust_remote_code=False, local_files_only=True
        )
        is_empty = not tokenizer.get_vocab()
    except Exception as error:  # `tokenizers` raises nothing more special
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"tokenization: {directory} holds no tokenizer that loads without remote code: {type(error).__name__}: "
            f"{reason} {expected}, whole; copy them there again."
        ) from error
    if is_empty:
        raise ValueError(f"tokenization: the tokenizer in {directory} has no words. {expected}, whole.")
    return tokenizer


def find_mask_id(tokenizer: Any, directory: Path) -> int:
    """The id of the mask token: the tokenizer's own, else that of the config.json beside it, else LLaDA2's.

    Raises:
      ValueError: for none of them, or an id that the tokenizer does not have.
    """
    ids, config_path = tokenizer.get_vocab(), directory / tokenizer_files.MASK_NAME
    named = _mask_id_of_config(config_path)
    if named is not None and (type(named) is not int or named not in ids.values()):
        raise ValueError(
            f"tokenization: {config_path} says mask_token_id = {named!r}, but the tokenizer beside it "
            f"has no such id (it ends at {max(ids.values())}). Use the tokenizer that belongs to the "
            f"model."
        )
    if tokenizer.mask_token_id is not None:
        return tokenizer.mask_token_id
    if named is not None:
        return named
    if LLADA_MASK in ids:
        return ids[LLADA_MASK]
    raise ValueError(
        f"tokenization: no mask token in {directory}: the tokenizer names no mask_token, config.json no "
        f"mask_token_id, and the vocabulary has no {LLADA_MASK!r}. Add one of them: a model that fills holes "
        "has such a token."
    )


def _mask_id_of_config(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"tokenization: {path} is no JSON ({error}). Copy it there again.") from None
    return values.get("mask_token_id") if isinstance(values, dict) else None
