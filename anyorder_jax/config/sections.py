"""Sections: every key a run can set, its default (here and nowhere else), and the values it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from anyorder_jax import paths
from anyorder_jax.config.parsing import absolute_sources, parse_mixture, parse_roles, parse_sources, require
from anyorder_jax.types import GRANULARITIES, ROLES

ORDERS = ("any_order", "causal", "prefix", "suffix", "forward", "inverse", "goal")
LORA_TARGETS = ("attention", "dense", "shared", "experts")


def _path(default: str = "", *, may_be_remote: bool = False) -> Any:
    """A field that holds a path, or a URL where that will do: `freeze_typed` makes it absolute."""
    return field(default=default, metadata={"rule": paths.absolute if may_be_remote else paths.on_disk})


def _sources() -> Any:
    """The field of `data.sources`: `freeze_typed` makes its folders absolute."""
    return field(default="", metadata={"rule": absolute_sources})


@dataclass(frozen=True)
class DataConfig:
    """Where trajectories come from and how they become rows."""

    environment: str = "BabyAI-GoToObj-v0"  # collected when `path` is empty
    path: str = _path(may_be_remote=True)  # a folder with manifest.json and train/ validation/ test/
    sources: str = _sources()  # several such folders, with shares of the examples: "data/babyai:0.3,data/mine:0.7"
    cache_dir: str = _path("data")  # where collected episodes are kept
    num_episodes: int = 5000  # training episodes to collect, or to use of `path` (0: all)
    num_validation_episodes: int = 200
    num_test_episodes: int = 200
    branches: int = 0  # other actions a step whose outcome is recorded when episodes are collected (collect --branches)
    noise: float = 0.0  # share of expert steps replaced by a wrong action (marked, never a target)
    action_free_share: float = 0.0  # share of training episodes whose actions nobody saw (mask tokens, never asked)
    exclude_goals: str = ""  # training leaves out episodes whose goal holds one of these phrases ("red ball,blue key")
    tokenizer: str = _path()  # a Hugging Face model directory; empty: model.path's, or one made for the data
    profile: str = "joint"  # "joint": one word a cell; "attributes": three; "words": running text, where a grid has it
    window: int = 4  # steps in an example, ending at any step of the episode; 0: whole trajectories
    context_tokens: int = 0  # > 0, for text: an example is what fits into so many tokens before a drawn step
    max_unit_tokens: int = 0  # longer units of text are shortened with a visible mark; 0: a quarter of context_tokens
    blocks: str = ""  # tokens to whose multiple a role's text is filled with end tokens ("action:32"); default 8
    frames: str = "markers"  # around units of text: our markers, or the tokenizer's own chat template ("chat")
    frames_version: int = 2  # of "chat"; 1: as the first runs had them (data/frames.py)
    num_tokens: int = 4096  # of the byte-pair tokenizer trained on text where no other tokenizer is given
    row_length: int = 232  # L, tokens in a packed row
    num_threads: int = 2
    prefetch: int = 8  # batches made ahead
    on_bad_record: str = "stop"  # a record that is broken or cannot be tokenised: "stop", or "skip" and count

    def __post_init__(self) -> None:
        require(self.num_episodes >= 0, "data.num_episodes", "an integer >= 0", self.num_episodes)
        require(
            self.profile in ("joint", "attributes", "words"),
            "data.profile", "'joint', 'attributes' or 'words'", self.profile,
        )  # fmt: skip
        require(self.branches >= 0, "data.branches", "an integer >= 0", self.branches)
        require(0 <= self.noise < 1, "data.noise", "a share in [0, 1)", self.noise)
        require(0 <= self.action_free_share <= 1, "data.action_free_share", "a share in [0, 1]", self.action_free_share)
        require(self.window >= 0, "data.window", "steps >= 1, or 0 for whole trajectories", self.window)
        require(self.context_tokens >= 0, "data.context_tokens", "tokens, or 0 for windows", self.context_tokens)
        require(self.max_unit_tokens == 0 or self.max_unit_tokens >= 24, "data.max_unit_tokens", "0, or at least 24",
                 self.max_unit_tokens)  # fmt: skip
        require(self.num_tokens >= 300, "data.num_tokens", "at least 300 (256 bytes and reserved tokens)",
                 self.num_tokens)  # fmt: skip
        self.role_blocks()
        if self.sources:
            parse_sources(self.sources)
        require(self.frames_version in (1, 2), "data.frames_version", "1 or 2", self.frames_version)
        require(self.frames in ("markers", "chat"), "data.frames", "'markers' or 'chat'", self.frames)
        require(self.context_tokens == 0 or self.context_tokens <= self.row_length, "data.context_tokens",
                 f"at most data.row_length = {self.row_length}", self.context_tokens)  # fmt: skip
        require(self.row_length >= 8, "data.row_length", "an integer >= 8", self.row_length)
        require(self.on_bad_record in ("stop", "skip"), "data.on_bad_record", "'stop' or 'skip'", self.on_bad_record)
        require(self.num_threads >= 1, "data.num_threads", "an integer >= 1", self.num_threads)
        require(self.prefetch >= 1, "data.prefetch", "an integer >= 1", self.prefetch)

    def role_blocks(self) -> dict[str, int]:
        """The block of every role, in tokens."""
        blocks = parse_roles(self.blocks, "data.blocks", dict.fromkeys(ROLES, 8))
        require(all(b >= 1 and b == int(b) for b in blocks.values()), "data.blocks", "integers >= 1", self.blocks)
        return {role: int(block) for role, block in blocks.items()}


@dataclass(frozen=True)
class MaskingConfig:
    """What is hidden, how often. `order` and `granularity` may be mixtures, e.g. "any_order:0.5,causal:0.5"."""

    order: str = "any_order"
    granularity: str = "unit"
    rate: float = 0.5  # p, the probability of hiding a slot
    rate_max: float = 0.0  # > rate: p is drawn per example from U[rate, rate_max]
    rate_end: float = 0.0  # with a schedule: p moves from `rate` to `rate_end` over training
    schedule: str = "constant"  # "constant", "linear" or "cosine"
    rates: str = ""  # what p is multiplied by, by role ("observation:0,action:2"); default 1, and 0 for system text
    causal_step: str = "last"  # which action `causal` asks: "last" of the example (windows), or "any"
    partial: float = 0.0  # share of draws of the orders that name whole units that show a random part of what they ask
    branches: float = 0.0  # share of `forward` and `prefix` draws that ask what a recorded branch led to
    complementary: bool = False  # also train on the inverse of every mask, in the same batch

    def __post_init__(self) -> None:
        orders = parse_mixture(self.order, ORDERS, "masking.order")
        require(0 <= self.branches <= 1, "masking.branches", "a share in [0, 1]", self.branches)
        require(0 <= self.partial <= 1, "masking.partial", "a share in [0, 1]", self.partial)
        require(
            not self.branches or bool({"forward", "prefix"} & orders.keys()),
            "masking.branches", "0 with an order that has no forward and no prefix", self.branches,
        )  # fmt: skip
        parse_mixture(self.granularity, GRANULARITIES, "masking.granularity")
        require(0 < self.rate <= 1, "masking.rate", "a probability in (0, 1]", self.rate)
        require(
            self.rate_max == 0 or self.rate < self.rate_max <= 1,
            "masking.rate_max", f"0, or a probability in (rate = {self.rate}, 1]", self.rate_max,
        )  # fmt: skip
        require(
            self.schedule in ("constant", "linear", "cosine"),
            "masking.schedule", "'constant', 'linear' or 'cosine'", self.schedule,
        )  # fmt: skip
        scheduled = self.schedule != "constant"
        require(
            0 < self.rate_end <= 1 if scheduled else self.rate_end == 0,
            "masking.rate_end", "in (0, 1] with a schedule and 0 without", self.rate_end,
        )  # fmt: skip
        require(not (scheduled and self.rate_max), "masking.rate_max", "0 when a schedule is set", self.rate_max)
        self.role_rates()
        require(self.causal_step in ("last", "any"), "masking.causal_step", "'last' or 'any'", self.causal_step)

    def role_rates(self) -> dict[str, float]:
        """What p is multiplied by, for every role."""
        return parse_roles(self.rates, "masking.rates", {role: float(role != "system") for role in ROLES})


@dataclass(frozen=True)
class ModelSelection:
    """Which LLaDA2 is trained: a preset from random weights, or a checkpoint at `path`."""

    preset: str = "tiny"  # model/presets.py
    path: str = _path()  # a Hugging Face style directory (split or merged experts) or an Orbax checkpoint
    compute_dtype: str = "float32"  # "float32" or "bfloat16"
    param_dtype: str = "float32"
    remat: str = "none"  # "none", "full", "dots", "save_moe_out"
    check: str = "on"  # "off": start from the weights at `path` also where they are not those of a trained model

    def __post_init__(self) -> None:
        require(self.check in ("on", "off"), "model.check", "'on' or 'off'", self.check)
        for name in ("compute_dtype", "param_dtype"):
            require(
                getattr(self, name) in ("float32", "bfloat16"),
                f"model.{name}", "'float32' or 'bfloat16'", getattr(self, name),
            )  # fmt: skip
        require(
            self.remat in ("none", "full", "dots", "save_moe_out"),
            "model.remat", "'none', 'full', 'dots' or 'save_moe_out'", self.remat,
        )  # fmt: skip


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank factors beside frozen weights (arXiv 2106.09685): y = x W + alpha / rank * (x A) B. Only they are
    trained.

    Factors are float32 always: they are few, and bfloat16 would lose small updates.
    """

    rank: int = 0  # r; 0: off, all weights are trained
    alpha: float = 32.0
    targets: str = "attention,dense,shared,experts"  # which matrices get factors: any of these four
    base_dtype: str = ""  # of the frozen matrices of the layers: "int8", or empty for model.param_dtype

    def __post_init__(self) -> None:
        require(self.rank >= 0, "lora.rank", "an integer >= 1, or 0 for off", self.rank)
        require(self.alpha > 0, "lora.alpha", "a number > 0", self.alpha)
        names = self.targets.split(",")
        require(
            set(names) <= set(LORA_TARGETS) and len(set(names)) == len(names),
            "lora.targets", f"names out of {', '.join(LORA_TARGETS)}, with commas between them", self.targets,
        )  # fmt: skip
        require(self.base_dtype in ("", "int8"), "lora.base_dtype", "'int8' or ''", self.base_dtype)
        require(
            not self.base_dtype or self.rank > 0,
            "lora.base_dtype", "'' without factors (lora.rank = 0): 8 bits cannot be trained", self.base_dtype,
        )  # fmt: skip


NO_LORA = LoRAConfig()


@dataclass(frozen=True)
class OptimizerConfig:
    """Which optimizer, with warm-up and cosine decay, clipping by the global norm."""

    name: str = "adamw"  # "adamw", "adamw8bit", "adafactor" or "muon": optimizer.py says when
    moment_dtype: str = "float32"  # of adamw and muon; "bfloat16" halves their state
    offload: bool = False  # moments wait in the host's memory (pinned) and are on the device during the update only
    stochastic_rounding: bool = False  # of bfloat16 weights (model.param_dtype), in place of float32 masters
    learning_rate: float = 2e-3
    end_learning_rate: float = 1e-4
    warmup_steps: int = 100
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-8
    weight_decay: float = 0.01
    decay: str = "matrices"  # "matrices": not norms, biases; "all": as dFactory
    clip_norm: float = 1.0
    update_pad_embedding: bool = True  # False: the pad row gets no gradient, as torch's padding_idx
    expert_bias_rate: float = 0.0  # > 0: the router's biases move by so much an update towards an even load (step.py)
    freeze_router: bool = False  # True: experts are trained, and who gets which token is not
    ema_decay: float = 0.0  # > 0: a running average of the weights is kept beside them (`evaluate --weights=ema`)

    def __post_init__(self) -> None:
        require(
            self.name in ("adamw", "adamw8bit", "adafactor", "muon"),
            "optimizer.name", "'adamw', 'adamw8bit', 'adafactor' or 'muon'", self.name,
        )  # fmt: skip
        require(
            self.moment_dtype in ("float32", "bfloat16"),
            "optimizer.moment_dtype", "'float32' or 'bfloat16'", self.moment_dtype,
        )  # fmt: skip
        for name in ("learning_rate", "eps", "clip_norm"):
            require(getattr(self, name) > 0, f"optimizer.{name}", "a number > 0", getattr(self, name))
        for name in ("end_learning_rate", "warmup_steps", "weight_decay", "expert_bias_rate"):
            require(getattr(self, name) >= 0, f"optimizer.{name}", "a number >= 0", getattr(self, name))
        for name in ("b1", "b2", "ema_decay"):
            require(0 <= getattr(self, name) < 1, f"optimizer.{name}", "in [0, 1)", getattr(self, name))
        require(self.decay in ("matrices", "all"), "optimizer.decay", "'matrices' or 'all'", self.decay)


@dataclass(frozen=True)
class LossConfig:
    """How the cross-entropies of hidden targets are weighed; the equations stand in `loss.py`."""

    normalisation: str = "kind"  # "kind" (every role by itself), "token" (dFactory) or "rate" (1/t, MDLM)
    weights: str = "observation:1,action:1,other:0.3"  # by role, used by "kind"; "other": roles that are not named
    end_weight: float = 1.0  # of a unit's end tokens after the first, which only fill its block
    confidence_weight: float = 0.0  # > 0: adds this times the entropy of targets that are already right (LLaDA2.0, 5.2)
    target_share: float = 1.0  # share of positions that may be targets; more are dropped and counted, fewer logits made

    def __post_init__(self) -> None:
        require(
            self.normalisation in ("kind", "token", "rate"),
            "loss.normalisation", "'kind', 'token' or 'rate'", self.normalisation,
        )  # fmt: skip
        require(0 < self.target_share <= 1, "loss.target_share", "a share in (0, 1]", self.target_share)
        self.role_weights()
        for name in ("end_weight", "confidence_weight"):
            require(getattr(self, name) >= 0, f"loss.{name}", "a number >= 0", getattr(self, name))

    def role_weights(self) -> dict[str, float]:
        """The weight of every role."""
        return parse_roles(self.weights, "loss.weights", dict.fromkeys(ROLES, 0.0))


@dataclass(frozen=True)
class TrainConfig:
    """Length and batch of a run."""

    num_steps: int = 6000
    batch_size: int = 8  # packed rows in an update, over all hosts and micro-batches
    accumulation_steps: int = 1  # micro-batches in an update
    on_nonfinite: str = "stop"  # "stop", or "skip" the update
    objective: str = "full"  # "full" attention within an example, or "block_diffusion" on [noisy ; clean]
    block_size: int = 32  # tokens of a block of block diffusion
    spike_factor: float = 0.0  # > 0: a loss above so many medians of the last `spike_window` is treated as not finite
    spike_window: int = 100  # updates

    def __post_init__(self) -> None:
        require(
            self.objective in ("full", "block_diffusion"),
            "train.objective", "'full' or 'block_diffusion'", self.objective,
        )  # fmt: skip
        for name in ("num_steps", "batch_size", "accumulation_steps", "block_size"):
            require(getattr(self, name) >= 1, f"train.{name}", "an integer >= 1", getattr(self, name))
        require(
            self.batch_size % self.accumulation_steps == 0,
            "train.batch_size", f"a multiple of accumulation_steps = {self.accumulation_steps}", self.batch_size,
        )  # fmt: skip
        require(self.spike_factor == 0 or self.spike_factor > 1, "train.spike_factor", "0 (off) or a number > 1",
                 self.spike_factor)  # fmt: skip
        require(self.spike_window >= 1, "train.spike_window", "an integer >= 1", self.spike_window)
        require(self.on_nonfinite in ("stop", "skip"), "train.on_nonfinite", "'stop' or 'skip'", self.on_nonfinite)

    @property
    def aligned_to(self) -> int:
        """Tokens to whose multiples examples are aligned: those of a block under block diffusion, else 1."""
        return self.block_size if self.objective == "block_diffusion" else 1


@dataclass(frozen=True)
class MeshConfig:
    """Devices per mesh axis; one of them may be -1 (all that is left)."""

    data: int = -1
    fsdp: int = 1
    expert: int = 1
    tensor: int = 1
    num_cpu_devices: int = 0  # of a run on a CPU; 0: one, or for a small model one for each core (flops.cpu_devices)

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.expert, self.tensor)
        require(all(s == -1 or s >= 1 for s in sizes), "mesh", "sizes >= 1, or -1 once", sizes)
        require(sizes.count(-1) <= 1, "mesh", "at most one -1", sizes)
        require(self.num_cpu_devices >= 0, "mesh.num_cpu_devices", "an integer >= 0", self.num_cpu_devices)


@dataclass(frozen=True)
class CheckpointConfig:
    """When state is saved, and how much of it is kept."""

    save_every_steps: int = 1000
    keep_last: int = 2
    keep_best: int = 1  # by validation loss; one that is not finite is the worst
    remote: str = _path(may_be_remote=True)  # e.g. gs://BUCKET/run: checkpoints, and a copy of the rest of the run
    on_failure: str = "stop"  # a checkpoint that cannot be written (full disk): "stop", or "continue" and try the next
    # (several processes always stop: their writers wait for one another)

    def __post_init__(self) -> None:
        require(
            self.on_failure in ("stop", "continue"), "checkpoint.on_failure", "'stop' or 'continue'", self.on_failure
        )
        require(self.save_every_steps >= 1, "checkpoint.save_every_steps", "an integer >= 1",
                 self.save_every_steps)  # fmt: skip
        require(self.keep_last >= 1, "checkpoint.keep_last", "an integer >= 1", self.keep_last)
        require(self.keep_best >= 0, "checkpoint.keep_best", "an integer >= 0", self.keep_best)


@dataclass(frozen=True)
class LogConfig:
    """What a run writes while it trains."""

    every_steps: int = 50
    validate_every_steps: int = 1000
    num_validation_rows: int = 64
    wandb_project: str = ""  # set: also log there (extra `wandb`)
    expert_load: bool = False  # True: how evenly each layer's experts are loaded (step.load_histogram)
    profile_steps: str = ""  # "10:13": updates 10, 11 and 12 (from 0) are traced into RUN/profile (profiling.py)

    def __post_init__(self) -> None:
        for name in ("every_steps", "validate_every_steps", "num_validation_rows"):
            require(getattr(self, name) >= 1, f"log.{name}", "an integer >= 1", getattr(self, name))
        self.profiled()

    def profiled(self) -> range:
        """The updates that are traced, counted from 0; empty where none are."""
        first, _, last = self.profile_steps.partition(":")
        is_range = first.isdecimal() and last.isdecimal() and int(first) < int(last)
        require(is_range or not self.profile_steps, "log.profile_steps", "FIRST:LAST, e.g. '10:13', or ''",
                self.profile_steps)  # fmt: skip
        return range(int(first), int(last)) if is_range else range(0)
