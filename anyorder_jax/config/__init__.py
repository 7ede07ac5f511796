"""Configuration: every key a run can set (`sections`), and how a recipe and a command line become one.

A recipe in `configs/` is a short program: `config = defaults()`, then the lines that differ. The command line changes
single keys (`--config.masking.rate=0.3`). `freeze` turns the result into these dataclasses and checks it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_collections import ConfigDict

from anyorder_jax.config.parsing import absolute_sources as absolute_sources
from anyorder_jax.config.parsing import parse_mixture as parse_mixture
from anyorder_jax.config.parsing import parse_roles as parse_roles
from anyorder_jax.config.parsing import parse_sources as parse_sources
from anyorder_jax.config.parsing import require
from anyorder_jax.config.sections import LORA_TARGETS as LORA_TARGETS
from anyorder_jax.config.sections import NO_LORA as NO_LORA
from anyorder_jax.config.sections import ORDERS as ORDERS
from anyorder_jax.config.sections import (
    CheckpointConfig,
    DataConfig,
    LogConfig,
    LoRAConfig,
    LossConfig,
    MaskingConfig,
    MeshConfig,
    ModelSelection,
    OptimizerConfig,
    TrainConfig,
)
from anyorder_jax.recipes import recipes as recipes
from anyorder_jax.types import GRANULARITIES


@dataclass(frozen=True)
class Config:
    """One run. Printed, saved as `config.json` in the run directory, and stored in every checkpoint."""

    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    model: ModelSelection = field(default_factory=ModelSelection)
    lora: LoRAConfig = field(default_factory=LoRAConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", "an integer in [0, 2^32)", self.seed)
        grains = parse_mixture(self.masking.granularity, GRANULARITIES, "masking.granularity")
        require(
            not ("attribute" in grains and self.data.profile == "joint"),
            "data.profile", "'attributes' for masking.granularity 'attribute' (a joint word has no parts)",
            self.data.profile,
        )  # fmt: skip
        require(
            not (self.optimizer.expert_bias_rate and self.lora.rank),
            "optimizer.expert_bias_rate", "0 with LoRA (lora.rank > 0), whose base is frozen",
            self.optimizer.expert_bias_rate,
        )  # fmt: skip
        require(
            not (self.optimizer.name == "muon" and self.lora.rank),
            "optimizer.name", "'adamw' with LoRA (lora.rank > 0): Muon is for whole matrices", self.optimizer.name,
        )  # fmt: skip
        require(
            not (self.masking.partial and self.loss.normalisation == "rate"),
            "masking.partial", "0 with loss.normalisation 'rate' (its 1/t is not that of a partly shown unit)",
            self.masking.partial,
        )  # fmt: skip
        orders = parse_mixture(self.masking.order, ORDERS, "masking.order")
        require(
            not ("causal" in orders and self.data.window == 0 and self.masking.causal_step == "last"),
            "masking.causal_step",
            "'any' with whole trajectories (data.window = 0), or only final actions would be learned",
            self.masking.causal_step,
        )  # fmt: skip


def defaults(variant: str = "") -> ConfigDict:
    """Every key with its default, locked: a recipe or a flag that mistypes one fails and names its neighbours.

    Args:
      variant: what follows the colon of `--config=recipe.py:variant`. "": the recipe itself. "smoke": the whole way
        in about a minute, at a size that shows only that it works.
    """
    if variant not in ("", "smoke"):
        raise ValueError(f"--config: unknown variant {variant!r}; known: 'smoke', or none.")
    config = ConfigDict(dataclasses.asdict(Config())).lock()
    if variant == "smoke":
        config.data.num_episodes, config.data.num_validation_episodes, config.data.num_test_episodes = 200, 50, 50
        config.train.num_steps, config.optimizer.warmup_steps = 200, 20
        config.log.every_steps, config.log.validate_every_steps = 20, 100
        config.checkpoint.save_every_steps = 100
    return config


def unknown_key(arguments: Sequence[str]) -> str:
    """A sentence about the first `--config.a.b` among a command's arguments that is no key, with those it is like (of
    this name in any section); "" where all are keys."""
    sections = {name: found for name, found in dataclasses.asdict(Config()).items() if isinstance(found, Mapping)}
    known = {f"{section}.{key}": key for section, found in sections.items() for key in found}
    known |= {field.name: field.name for field in dataclasses.fields(Config) if field.name not in sections}
    for argument in arguments:
        name = argument.lstrip("-").partition("=")[0]
        path = name.removeprefix("config.")
        if name == path or path in known:
            continue
        last = path.rpartition(".")[2]
        near = [key for key, end in known.items() if end == last] or difflib.get_close_matches(path, known)
        return f"no key {path!r}. Did you mean {' or '.join(near) or 'one of anyorder_jax/config/sections.py'}?"
    return ""


def _build(cls: type, values: Mapping[str, Any], where: str) -> Any:
    fields = {f.name: f for f in dataclasses.fields(cls)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        near = difflib.get_close_matches(unknown[0], fields)
        raise ValueError(f"{where}: unknown key {unknown[0]!r}. Did you mean one of {near or sorted(fields)}?")
    built = {}
    for name, value in values.items():
        default = fields[name].default_factory
        if isinstance(value, Mapping):
            built[name] = _build(default, value, f"{where}.{name}")  # type: ignore[arg-type]
        else:
            built[name] = value
    return cls(**built)


def freeze(config: Mapping[str, Any] | ConfigDict) -> Config:
    """Checks a ConfigDict (or the dictionary of a saved `config.json`) and makes it a `Config`.

    Raises:
      ValueError: for an unknown key or a refused value, naming the key and what was expected.
    """
    values = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    return _build(Config, _by_role(values), "config")


def _by_role(values: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration of version 0.1.0, whose rates and weights were six keys, or of the first chat frames, in today's
    words; others as they are."""
    masking, loss, data = (dict(values.get(name, {})) for name in ("masking", "loss", "data"))
    if data.get("frames") == "chat":
        data.setdefault("frames_version", 1)  # the first runs with chat frames had no such key
    roles = ("observation", "action", "goal")
    if any(f"{role}_rate_scale" in masking for role in roles):
        scales = {role: masking.pop(f"{role}_rate_scale", 1.0) for role in roles}
        masking["rates"] = ",".join(f"{role}:{scale:g}" for role, scale in scales.items() if scale != 1)
    if any(f"{group}_weight" in loss for group in ("observation", "action", "other")):
        defaults_then = {"observation": 1.0, "action": 1.0, "other": 0.3}
        weights = {name: loss.pop(f"{name}_weight", default) for name, default in defaults_then.items()}
        loss["weights"] = ",".join(f"{name}:{weight:g}" for name, weight in weights.items())
    sections = {"masking": masking, "loss": loss, "data": data}
    return {**values, **{name: section for name, section in sections.items() if section}}


_DEFAULTS = Config()


def path_keys() -> dict[str, Callable[[str], str]]:
    """The keys whose values are paths ("data.path", ...), and what makes each absolute."""
    sections = {section.name: getattr(_DEFAULTS, section.name) for section in dataclasses.fields(Config)}
    return {
        f"{name}.{key.name}": key.metadata["rule"]
        for name, section in sections.items()
        if dataclasses.is_dataclass(section)
        for key in dataclasses.fields(section)
        if "rule" in key.metadata
    }


def with_absolute_paths(config: Config) -> Config:
    """The configuration with every path absolute, as seen from the working directory.

    Raises:
      ValueError: for the ~ of a user that there is not, or a URL where only a disk will do; names the key.
    """
    for key, rule in path_keys().items():
        section, _, name = key.partition(".")
        values = getattr(config, section)
        try:
            path = rule(getattr(values, name))
        except ValueError as error:
            raise ValueError(f"config.{key}: {error}") from None
        config = dataclasses.replace(config, **{section: dataclasses.replace(values, **{name: path})})
    return config


def freeze_typed(config: ConfigDict) -> Config:
    """`freeze` for what a recipe and a command line say: the run that begins here remembers absolute places."""
    return with_absolute_paths(freeze(config))


def to_json(config: Config) -> str:
    """The resolved configuration as indented JSON; `freeze(json.loads(...))` gives it back."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"
