"""WebArena-Verified tasks on stand-in sites: each oracle, whole and without its last action, by the official scorer.

    python benchmarks/webarena_sites.py                 ten minutes; writes results/webarena_sites.json
    python benchmarks/webarena_sites.py --tasks=44,527  prints these alone

Needs ANYORDER_JAX_WEBARENA and Chromium (docs/web.md); the encyclopedia's tasks need kiwix-tools and zim-tools too. A
task is proven with 1.0 whole and 0.0 without the last action. These are never WebArena's scores: the sites are ours.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from anyorder_jax.environments.webarena import package
from anyorder_jax.environments.webarena.browser import SiteTab
from anyorder_jax.environments.webarena.oracles import proof
from anyorder_jax.environments.webarena.oracles.proof import Proof
from anyorder_jax.environments.webarena.sites import started

RESULT = Path(__file__).parent / "results" / "webarena_sites.json"
NAME = "WebArena-Verified tasks on stand-in sites"


def summary(proofs: list[Proof]) -> dict[str, Any]:
    """How many tasks are proven, by site and by what is asked; the others with the reason."""
    proven = [one for one in proofs if one.is_proven]
    of: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for one in proven:
        of[" and ".join(one.task.sites)][one.task.kind] += 1
    return {
        "oracles": len(proofs),
        "proven": len(proven),
        "by site": {site: dict(sorted(counts.items())) for site, counts in sorted(of.items())},
        "not proven": {one.task.number: one.why for one in proofs if not one.is_proven},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=NAME, allow_abbrev=False)
    parser.add_argument("--tasks", help="numbers, with commas between them; all that have an oracle")
    wanted = parser.parse_args().tasks
    begun, directory = time.monotonic(), package.directory()
    with contextlib.ExitStack() as stack:
        sites = stack.enter_context(started())
        tab = stack.enter_context(contextlib.closing(SiteTab("benchmark", (), True)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        todo = proof.tasks(package.tasks_file(directory), sites.addresses)
        if wanted:
            todo = [(task, plan) for task, plan in todo if task.number in wanted.split(",")]
        proofs = proof.prove(tab, sites, todo, folder)
    found = {"name": NAME, "version": package.version(directory), "left out": sites.missing, **summary(proofs)}
    seconds = time.monotonic() - begun
    actions = sum(one.num_actions for one in proofs)
    found |= {"actions": actions, "seconds": round(seconds, 1), "columns": ["whole", "short", "actions", "seconds"]}
    rows = {one.task.number: [one.whole, one.short, one.num_actions, round(one.seconds, 2)] for one in proofs}
    print(json.dumps(found, indent=2, ensure_ascii=False))
    if not wanted:
        text = json.dumps({**found, "tasks": 0}, indent=2, ensure_ascii=False)
        lines = ",\n".join(f"    {json.dumps(number)}: {json.dumps(row)}" for number, row in rows.items())
        text = text.replace('"tasks": 0', '"tasks": {\n' + lines + "\n  }")  # a line a task
        RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
