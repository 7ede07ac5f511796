"""Report of running text: rows.jsonl, and report.json and the terminal's table, which are grouped from its rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from anyorder_jax.asking import rows
from anyorder_jax.asking.evaluation import Found
from anyorder_jax.asking.measures import MEASURES
from anyorder_jax.asking.tables import text_table
from anyorder_jax.files import write_whole

BY = ("question", "role", "measure", "predictor")
"""What report.json groups rows by."""


def write(directory: Path, about: Mapping[str, Any], found: Found) -> tuple[dict[str, Any], str]:
    """Writes rows.jsonl and report.json.

    Args:
      directory: exists.
      about: what was evaluated.
      found: all that was measured.

    Returns:
      (content of report.json, the text for the terminal).
    """
    rows.write(directory / "rows.jsonl", found.rows)
    summary = rows.summarise(found.rows, by=BY)
    measured = {key[BY.index("measure")] for key in summary}
    content = {
        "about": {**about, "schema_version": rows.SCHEMA_VERSION, "num_contexts": found.num_asks},
        "measures": {name: measure.about for name, measure in MEASURES.items() if name in measured},
        "summary": [dict(zip(BY, key, strict=True)) | estimate.as_json() for key, estimate in summary.items()],
        "calibration": found.calibration,
    }
    write_whole(directory / "report.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    return content, _text(about, found, text_table(summary))


def _text(about: Mapping[str, Any], found: Found, table: str) -> str:
    """All that is printed."""
    errors = [
        f"    {question:14} " + ", ".join(f"{role} {diagram['ece']:.3f}" for role, diagram in by_role.items())
        for question, by_role in found.calibration.items()
        if by_role
    ]
    num = about["num_test_episodes"]
    return "\n\n".join([
        *([f"WARNING: {about['warning']}."] if about["warning"] else []),
        f"{about['checkpoint']} on {num} {about['split']} episode{'s' * (num != 1)} "
        "(nll in nats; every hidden token at once; accuracies: argmax over the whole vocabulary)",
        table,
        "\n".join(["Calibration error of the model (ECE):", *errors]),
        "Baselines: unigram and most frequent unit of the role in the training split; copy of the role's unit before.",
        about["acting"],
    ])  # fmt: skip
