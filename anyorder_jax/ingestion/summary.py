"""Summary: what an ingestion gave, as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator

from anyorder_jax.data import sources

_MEANING = {
    "images": "images left out",
    "empty_turns": "empty turns dropped",
    "repeated_system": "repeated instructions dropped",
    "broken_characters": "broken characters replaced",
    "truncated_observations": "observations that were cut off in the log (kept)",
    "invalid_arguments": "calls whose arguments are no JSON (kept as text)",
    "invalid_calls": "calls that are no JSON (kept as text)",
    "unmatched_results": "results of no call of their turn (kept where they stood)",
    "late_results": "results that came after a later turn (kept where they stood)",
    "untrained_turns": "turns of the agent that are no targets (kept as context)",
    "html_dropped": "pages' HTML left out beside their accessibility trees",
    "subagent_references": "references to subagents' own trajectories left out",
}


def summary_lines(manifest: sources.Manifest) -> Iterator[str]:
    """The lines: what was recognised, episodes by split, units and characters by role, what was dropped."""
    counts = manifest.settings["counts"]
    for what, number in sorted(counts["recognised"].items(), key=lambda item: -item[1]):
        yield f"{number} record{'s' * (number != 1)} read as {what}"
    yield ""
    yield f"{'split':<12}{'episodes':>10}{'tasks':>10}{'steps':>10}{'MB':>10}"
    for split, shards in manifest.splits.items():
        steps, size = sum(s.num_steps for s in shards), sum(s.num_bytes for s in shards) / 1e6
        yield f"{split:<12}{counts[split]['episodes']:>10}{counts[split]['tasks']:>10}{steps:>10}{size:>10.2f}"
    yield ""
    yield f"{'role':<12}{'units':>10}{'characters':>14}{'a unit':>10}"
    units: dict[str, int] = {}
    characters: dict[str, int] = {}
    for split in manifest.splits:
        for role, number in counts[split]["units"].items():
            units[role] = units.get(role, 0) + number
            characters[role] = characters.get(role, 0) + counts[split]["characters"][role]
    for role, number in units.items():
        yield f"{role:<12}{number:>10}{characters[role]:>14}{characters[role] / number:>10.0f}"
    yield ""
    told = [(counts["refused"], "records refused"), (counts["duplicates"], "episodes dropped that were there before")]
    told += [(counts["joined_records"], "records joined into the episodes of others")]
    told += [(counts["dropped"][name], text) for name, text in _MEANING.items() if name in counts["dropped"]]
    lines = [f"{number:>8} {text}" for number, text in told if number]
    yield from lines or ["Nothing was dropped."]
    num_tasks = sum(counts[split]["tasks"] for split in manifest.splits)
    if num_tasks < 3:
        yield (
            f"All episodes are of {num_tasks} task{'s' * (num_tasks > 1)}, so not every split has one. If the first "
            "user's turn is the same everywhere, give the records a task_id."
        )
