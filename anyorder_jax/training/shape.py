"""Shape: which model a run trains, from its configuration and its tokenizer."""

from __future__ import annotations

import dataclasses

from anyorder_jax.config import Config
from anyorder_jax.model import presets
from anyorder_jax.model.config import ModelConfig
from anyorder_jax.process import say
from anyorder_jax.task import Task


def as_published(config: Config) -> ModelConfig:
    """The model's shape: of the checkpoint at `model.path`, or the preset as it is published.

    Raises:
      FileNotFoundError, ValueError: for no such model, one with fewer positions than are asked of it, or one whose
        block routing would leak the answers of block diffusion.
    """
    if config.model.path:
        from anyorder_jax import weights  # late: it brings all that reads checkpoints of others

        model_config = weights.read_model_config(config.model.path)
        if config.data.row_length > model_config.max_position_embeddings:
            raise ValueError(
                f"config.data.row_length: {config.data.row_length} is more than the max_position_embeddings = "
                f"{model_config.max_position_embeddings} of {config.model.path}. Make rows shorter."
            )
    else:
        model_config = presets.get(config.model.preset)
    if config.train.objective == "block_diffusion":
        model_config.refuse_straddling(config.train.block_size)
    return model_config


def model_config_of(config: Config, task: Task) -> ModelConfig:
    """The model's shape (`as_published`), a preset's with the vocabulary's size and ids.

    Raises:
      FileNotFoundError, ValueError: as `as_published`; for a model with fewer words than the vocabulary.
    """
    model_config = as_published(config)
    if config.model.path:
        if model_config.vocab_size < task.vocabulary.size:
            raise ValueError(
                f"config.model.path: {config.model.path} has {model_config.vocab_size} embedding rows, but the "
                f"tokenizer needs {task.vocabulary.size}. Use the tokenizer that belongs to the model."
            )
        mask_id = model_config.mask_token_id
        if mask_id is not None and not task.vocabulary.has_id(mask_id):
            raise ValueError(
                f"config.model.path: {config.model.path} says mask_token_id = {mask_id}, and the tokenizer has no such "
                "id. Use the tokenizer that belongs to the model."
            )
        return model_config
    return dataclasses.replace(
        model_config,
        vocab_size=task.vocabulary.size,
        pad_token_id=task.vocabulary.pad_id,
        mask_token_id=task.vocabulary.mask_id,
    )


def say_other_mask(model_config: ModelConfig, task: Task) -> None:
    """Tells when the model's config.json and the tokenizer name different mask tokens: the tokenizer's is used."""
    named, used = model_config.mask_token_id, task.vocabulary.mask_id
    if named not in (None, used):
        words = task.vocabulary.tokenizer.convert_ids_to_tokens([named, used])
        say(f"Mask token: the tokenizer's {words[1]!r} ({used}), not the model's config.json's {words[0]!r} ({named}).")
