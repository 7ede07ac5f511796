"""A suite: variants of a run, each trained from several seeds, and the measures that compare them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from anyorder_jax.evaluation.results import Key, Results, asked, checked, key_of, of_each, played
from anyorder_jax.statistics import over_seeds

MEASURES = {
    "greedy success": played("model/greedy", "success"),
    "sampled success": played("model/sampled", "success"),
    "steps / expert": played("model/sampled", "steps_relative_to_expert"),
    "causal action acc.": asked("causal", "action_accuracy"),
    "causal action nll": asked("causal", "action_nll"),
    "next-obs cell acc.": asked("forward", "cell_accuracy"),
    "nll/cell p=.5": asked("any_order@0.5", "nll_per_cell"),
    "nll/changed cell": asked("forward", "nll_per_changed_cell"),
    "inverse action acc.": asked("inverse", "action_accuracy"),
}
"""Column title -> what it shows."""


HEATMAP = {
    "policy": asked("causal", "nll_per_target"),
    "forward": asked("forward", "nll_per_target"),
    "inverse": asked("inverse", "nll_per_target"),
    "goal": asked("goal", "nll_per_target"),
    "past": asked("past", "nll_per_target"),
    "future": asked("future", "nll_per_target"),
    "random": asked("any_order@0.5", "nll_per_target"),
}
"""What is asked, for the heat-map of UniMASK (2211.10869, figure 4): column title -> what it shows."""


@dataclass(frozen=True)
class Suite:
    """What is compared.

    variants: name -> arguments of `anyorder_jax.train`; the first is what the others are compared with. "{run:NAME}" in
    an argument is the run of another variant with the same seed. seeds: `--config.seed` of each repetition. evaluate:
    more arguments of `anyorder_jax.evaluate`. parts: its `--parts` (older files say `suites`); more: further arguments
    for one of these alone. levels: name -> arguments of one more evaluation (e.g. `--env=`), whose keys have this
    `level`. at_steps: checkpoints that are evaluated too, whose keys have this `step`. measures: column title -> what
    it shows, a key of `results.asked` or `results.played` (or a dotted path, as older suites have it). heatmap: the
    same, shown relative to the column's best. against: variant -> the one it is compared with instead of the first.
    file: where the suite was read from (`ablate` sets it): recipes and other relative paths in arguments are looked for
    beside it first.
    """

    question: str
    variants: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    evaluate: Sequence[str] = ()
    measures: Mapping[str, Key] = field(default_factory=lambda: MEASURES)
    parts: Sequence[str] = ("report",)
    more: Mapping[str, Sequence[str]] = field(default_factory=dict)
    levels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    at_steps: Sequence[int] = ()
    heatmap: Mapping[str, Key] = field(default_factory=dict)
    against: Mapping[str, str] = field(default_factory=dict)
    file: str = ""
    suites: InitVar[Sequence[str]] = ()

    def __post_init__(self, suites: Sequence[str]) -> None:
        if suites:
            object.__setattr__(self, "parts", suites)
        if not self.variants or len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"suite: expected variants and distinct seeds, got {self.variants} and {self.seeds}.")
        for name in self.variants:
            if set(name) & set(",/"):  # a directory, and one of the names of --only
                raise ValueError(f"suite: variant {name!r}: expected a name without ',' and '/'.")
            unknown = [other for other in self.needs(name) if other not in self.variants or self.needs(other)]
            if unknown:
                raise ValueError(f"suite: {name} starts from {unknown}: expected variants that start from no other.")
        for name in ("measures", "heatmap"):
            object.__setattr__(self, name, {title: self._key(given) for title, given in getattr(self, name).items()})
        strangers = sorted({*self.against, *self.against.values()} - set(self.variants))
        if strangers:
            raise ValueError(f"suite: `against` names {strangers}; expected variants: {', '.join(self.variants)}.")

    def _key(self, given: Key | str) -> Key:
        """What a column shows. Raises ValueError for a name that there is not."""
        key = key_of(given, self.levels) if isinstance(given, str) else checked(given)
        if key.level and key.level not in self.levels:
            raise ValueError(f"suite: {key.level!r} is none of its levels: {', '.join(self.levels) or 'it has none'}.")
        return key

    def needs(self, variant: str) -> list[str]:
        """The variants whose runs this one starts from."""
        return re.findall(r"\{run:([^}]+)\}", " ".join(self.variants[variant]))

    def arguments(self, variant: str, seed: int, directory: Path) -> list[str]:
        """The variant's arguments of `train`, with other variants' runs filled in."""
        return [
            re.sub(r"\{run:([^}]+)\}", lambda found: str(directory / found[1] / str(seed)), argument)
            for argument in self.variants[variant]
        ]


class Size(NamedTuple):
    """How long a suite's runs are. at_steps: kept checkpoints before the last one. train, evaluate: arguments of these
    commands."""

    num_seeds: int
    num_steps: int
    at_steps: tuple[int, ...]
    train: tuple[str, ...]
    evaluate: tuple[str, ...]


def size_of(name: str, num_seeds: int = 3) -> Size:
    """`small`: 1,500 updates of the tiny preset, for a CPU. `full`: 20,000 of the `babyai` preset, for a GPU.

    Args:
      name: "" or "small", or "full".
      num_seeds: of the small size; the full one has five more.

    Raises:
      ValueError: for another name.
    """
    if name in ("", "small"):
        train = (*_length(1500), "--config.checkpoint.save_every_steps=500", "--config.checkpoint.keep_last=3")
        return Size(
            num_seeds, 1500, (500, 1000), train, ("--num_episodes=200", "--rules=greedy,sampled", "--num_windows=4")
        )
    if name == "full":
        train = (
            *_length(20_000), "--config.model.preset=babyai", "--config.train.batch_size=64",
            "--config.optimizer.warmup_steps=500", "--config.checkpoint.save_every_steps=5000",
            "--config.checkpoint.keep_last=4",
        )  # fmt: skip
        return Size(num_seeds + 5, 20_000, (5000, 10_000, 15_000), train, ("--num_episodes=1000", "--num_windows=4"))
    raise ValueError(f"suite: unknown size {name!r}; expected 'small' or 'full'.")


def _length(num_steps: int) -> tuple[str, ...]:
    return f"--config.train.num_steps={num_steps}", f"--config.log.validate_every_steps={num_steps // 3}"


def compare(suite: Suite, results: Results) -> dict[str, Any]:
    """Mean and 95% interval over seeds of every measure and variant.

    Args:
      suite: what was run.
      results: variant -> the run of every seed.

    Returns:
      {variant: {measure: as `statistics.over_seeds`}}; a measure that one of a variant's runs lacks is left out.
    """
    return {
        name: {
            title: over_seeds(values)
            for title, key in suite.measures.items()
            if (values := of_each(runs, key)) is not None
        }
        for name, runs in results.items()
    }


def not_measured(suite: Suite, results: Results) -> list[str]:
    """The columns that stay empty because no run was asked for them."""
    return [
        title
        for title, key in suite.measures.items()
        if not any(key in run.values for runs in results.values() for run in runs)
    ]
