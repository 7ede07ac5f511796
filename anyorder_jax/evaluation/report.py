"""Report: every number as JSON, and the table that people read on the terminal."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from anyorder_jax import files, paths
from anyorder_jax.asking.tables import interval, table
from anyorder_jax.evaluation.world_model import MODEL, Results
from anyorder_jax.statistics import Estimate

SHOWN = (
    ("any_order@0.5", "cell_accuracy"),
    ("any_order@0.5", "nll_per_cell"),
    ("any_order@0.5", "object_cell_accuracy"),
    ("any_order@0.5", "attribute_accuracy"),
    ("any_order@0.5", "nll_per_token"),
    ("any_order@0.5", "nll_per_observation"),
    ("any_order@0.5", "action_accuracy"),
    ("any_order@0.3", "cell_accuracy"),
    ("any_order@0.3", "nll_per_cell"),
    ("any_order@0.15", "cell_accuracy"),
    ("any_order@0.15", "nll_per_cell"),
    ("forward", "cell_accuracy"),
    ("forward", "object_cell_accuracy"),
    ("forward", "attribute_accuracy"),
    ("forward", "exact_observation_rate"),
    ("forward", "nll_per_cell"),
    ("causal", "action_accuracy"),
    ("causal", "action_nll"),
    ("inverse", "action_accuracy"),
    ("goal", "goal_word_accuracy"),
    ("goal", "exact_goal_rate"),
)
"""The rows of the terminal's table; report.json has all of them."""


def encoded(found: Any) -> Any:
    """Nested mappings and lists with `Estimate`s in them, as JSON."""
    if isinstance(found, Estimate):
        return found.as_json()
    if isinstance(found, Mapping):
        return {name: encoded(value) for name, value in found.items()}
    return [encoded(value) for value in found] if isinstance(found, list | tuple) else found


PAIRED = (
    "nll_per_target", "nll_per_cell", "nll_per_changed_cell", "cell_accuracy", "action_accuracy", "action_nll",
    "success", "steps_relative_to_expert",
)  # fmt: skip
"""Measures that are also kept per episode."""


def by_episode(results: Mapping[str, Mapping[str, Mapping[str, Estimate]]]) -> dict[str, list[list[float]]]:
    """{"GROUP.NAME.MEASURE": [numerators, denominators]} of PAIRED measures, without the trivial predictors."""
    return {
        f"{group}.{name}.{measure}": [[float(f"{x:.6g}") for x in part] for part in estimate.parts]
        for group, by_name in results.items()
        for name, found in by_name.items()
        for measure, estimate in found.items()
        if measure in PAIRED and name.split("/")[0] in (MODEL, "random", "expert") and estimate.parts is not None
    }


def write_whole(path: Path, content: bytes) -> None:
    """Writes so that nobody reads half a file. Raises ValueError when the disk refuses, with the path."""
    with _explained():
        files.write_whole(path, content)


def make_directory(path: Path) -> None:
    """Makes the report's directory, before hours of rollouts. Raises ValueError when the disk refuses."""
    with _explained():
        files.make_directory(path)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes indented JSON; NaN is refused, because JSON has none."""
    write_whole(path, json.dumps(content, indent=1, allow_nan=False).encode() + b"\n")


def write_compact(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON on one line: for many numbers."""
    write_whole(path, json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n")


def world_model_table(results: Results) -> str:
    """One row a question and measure, the model with its interval first, then its baselines."""
    names = list(dict.fromkeys(name for by_name in results.values() for name in by_name if name != MODEL))
    rows = [["question / measure", "model", "95%, episodes", "n", *(name.replace("_", " ") for name in names)]]
    for question, measure in SHOWN:
        by_name = results.get(question, {})
        if measure not in by_name.get(MODEL, {}):
            continue
        model = by_name[MODEL][measure]
        label = f"{question:14} {measure.replace('_', ' ')}"
        others = [f"{by_name[n][measure].value:.3f}" if measure in by_name.get(n, {}) else "-" for n in names]
        rows.append([label, f"{model.value:.3f}", interval(model), str(model.count), *others])
    return table(rows)


def acting_table(acting: Mapping[str, Mapping[str, Estimate]]) -> str:
    """One row a policy."""
    columns = {
        "success": "success",
        "return": "return",
        "steps": "steps",
        "steps_relative_to_expert": "steps / expert",
        "success_weighted_path_length": "SPL",
    }
    rows = [["policy", "success", "95%, episodes", "n", *list(columns.values())[1:]]]
    for name, found in acting.items():
        success = found["success"]
        rest = [f"{found[c].value:.2f}" if c in found else "-" for c in list(columns)[1:]]
        rows.append([name, f"{success.value:.3f}", interval(success), str(success.count), *rest])
    return table(rows)


def likelihood_table(results: Results) -> str:
    """One row a definition and measure, the model and the unigram."""
    rows = [["definition / measure", "model", "95%, episodes", "most frequent"]]
    for definition, by_name in results.items():
        for measure, model in by_name[MODEL].items():
            unigram = by_name["most_frequent"][measure]
            label = f"{definition:11} {measure.replace('_', ' ')}"
            rows.append([label, f"{model.value:.3f}", interval(model), f"{unigram.value:.3f}"])
    return table(rows)


def robustness_table(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """One row a disturbance and strength: success of every policy, and the NLL of what comes next."""
    (clean,) = curves["clean"]
    names = list(clean["acting"])
    rows = [["disturbance", *names, "action nll", "next cell nll"]]
    for name, points in curves.items():
        for point in points:
            success = [f"{point['acting'][n]['success'].value:.3f}" if n in point["acting"] else "-" for n in names]
            known = point["world_model"]
            nll = [
                f"{known[q][m].value:.3f}" if m in known.get(q, {}) else "-"
                for q, m in (("causal", "action_nll"), ("forward", "nll_per_cell"))
            ]
            rows.append([f"{name} {point['strength']:g}", *success, *nll])
    return table(rows)


def text(about: Mapping[str, Any], world_model: Results, acting: Mapping[str, Mapping[str, Estimate]]) -> str:
    """All that is printed."""
    parts: Iterable[str] = (
        f"{paths.shown(about['checkpoint'])} on {about['environment']}",
        f"World model on {about['num_test_episodes']} test episodes, windows of {about['window']} steps "
        "(nll in nats; accuracies: argmax over the whole vocabulary)",
        world_model_table(world_model),
        f"Acting on {about['num_episodes']} held-out seeds "
        "(no_model: the same rule on the training data's action frequencies)",
        acting_table(acting),
        about["held_out"],
        "Intervals are over the episodes of this one run; runs from other training seeds differ by more "
        "(anyorder_jax.ablate repeats over seeds).",
    )
    return "\n\n".join(parts)
