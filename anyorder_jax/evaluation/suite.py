"""A suite: variants of a run, each trained from several seeds, and the measures that compare them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from anyorder_jax.statistics import over_seeds

MEASURES = {
    "greedy success": "acting.model/greedy.success",
    "sampled success": "acting.model/sampled.success",
    "steps / expert": "acting.model/sampled.steps_relative_to_expert",
    "causal action acc.": "world_model.causal.model.action_accuracy",
    "causal action nll": "world_model.causal.model.action_nll",
    "next-obs cell acc.": "world_model.forward.model.cell_accuracy",
    "nll/cell p=.5": "world_model.any_order@0.5.model.nll_per_cell",
    "nll/changed cell": "world_model.forward.model.nll_per_changed_cell",
    "inverse action acc.": "world_model.inverse.model.action_accuracy",
}
"""Column title -> where report.json holds it."""


HEATMAP = {
    "policy": "world_model.causal.model.nll_per_target",
    "forward": "world_model.forward.model.nll_per_target",
    "inverse": "world_model.inverse.model.nll_per_target",
    "goal": "world_model.goal.model.nll_per_target",
    "past": "world_model.past.model.nll_per_target",
    "future": "world_model.future.model.nll_per_target",
    "random": "world_model.any_order@0.5.model.nll_per_target",
}
"""What is asked, for the heat-map of UniMASK (2211.10869, figure 4): column title -> where report.json holds it."""


@dataclass(frozen=True)
class Suite:
    """What is compared.

    variants: name -> arguments of `anyorder_jax.train`; the first is what the others are compared with. "{run:NAME}" in
    an argument is the run of another variant with the same seed. seeds: `--config.seed` of each repetition. evaluate:
    more arguments of `anyorder_jax.evaluate`. suites: its `--suite`; more: further arguments for one of these alone.
    levels: name -> arguments of one more evaluation (e.g. `--env=`), whose report stands under `levels.NAME`. at_steps:
    checkpoints that are evaluated too, under `steps.STEP`. measures: column title -> path in the reports. heatmap: the
    same, shown relative to the column's best. against: variant -> the one it is compared with instead of the first.
    file: where the suite was read from (`ablate` sets it): recipes and other relative paths in arguments are looked for
    beside it first.
    """

    question: str
    variants: Mapping[str, Sequence[str]]
    seeds: Sequence[int]
    evaluate: Sequence[str] = ()
    measures: Mapping[str, str] = field(default_factory=lambda: MEASURES)
    suites: Sequence[str] = ("report",)
    more: Mapping[str, Sequence[str]] = field(default_factory=dict)
    levels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    at_steps: Sequence[int] = ()
    heatmap: Mapping[str, str] = field(default_factory=dict)
    against: Mapping[str, str] = field(default_factory=dict)
    file: str = ""

    def __post_init__(self) -> None:
        if not self.variants or len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise ValueError(f"suite: expected variants and distinct seeds, got {self.variants} and {self.seeds}.")
        for name in self.variants:
            if set(name) & set(",/"):  # a directory, and one of the names of --only
                raise ValueError(f"suite: variant {name!r}: expected a name without ',' and '/'.")
            unknown = [other for other in self.needs(name) if other not in self.variants or self.needs(other)]
            if unknown:
                raise ValueError(f"suite: {name} starts from {unknown}: expected variants that start from no other.")
        strangers = sorted({*self.against, *self.against.values()} - set(self.variants))
        if strangers:
            raise ValueError(f"suite: `against` names {strangers}; expected variants: {', '.join(self.variants)}.")

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
            num_seeds, 1500, (500, 1000), train, ("--num_episodes=200", "--modes=greedy,sampled", "--num_windows=4")
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


def find(report: Mapping[str, Any], path: str) -> float:
    """The value at `path` of a report ("acting.model/greedy.success"; a question's name may hold a dot).

    Raises:
      KeyError: when the report has nothing there.
    """
    node: Any = report
    rest = path
    while rest:
        keys = [key for key in node if rest == key or rest.startswith(key + ".")]
        if not keys:
            raise KeyError(f"report.json has nothing at {path!r}; at {rest!r} it has {sorted(node)}.")
        node, rest = node[keys[0]], rest[len(keys[0]) + 1 :]
    return float(node["value"])


def compare(suite: Suite, reports: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """Mean and 95% interval over seeds of every measure and variant.

    Args:
      suite: what was run.
      reports: variant -> report.json of every seed.

    Returns:
      {variant: {measure: as `statistics.over_seeds`}}; a measure that a variant's reports lack is left out.
    """
    table: dict[str, Any] = {}
    for name, found in reports.items():
        table[name] = {}
        for title, path in suite.measures.items():
            try:
                values = [find(report, path) for report in found]
            except KeyError:
                continue
            table[name][title] = over_seeds(values)
    return table


def read_reports(workdir: Path, suite: Suite) -> dict[str, Any]:
    """All that was found out about one run: report.json and what stands beside it, with `levels` and `steps`."""
    found = _read_folder(workdir / "report")
    found["levels"] = {name: _read_folder(workdir / "report" / name) for name in suite.levels}
    steps = [step for step in suite.at_steps if (workdir / "report" / str(step) / "report.json").is_file()]
    found["steps"] = {str(step): _read_folder(workdir / "report" / str(step)) for step in steps}
    return found


def _read_folder(folder: Path) -> dict[str, Any]:
    """report.json, with the content of its neighbours beside its own."""
    content = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for name in ("likelihood", "robustness", "decoding"):
        path = folder / f"{name}.json"
        if path.is_file():
            beside = json.loads(path.read_text(encoding="utf-8"))
            content |= {k: v for k, v in beside.items() if k != "about"}
    return content
