"""What is hidden as a whole: a unit, a cell, an attribute, or a token.

Three words a cell. In the tiny preset's vocabulary a word is one token, so that attributes and tokens agree there to
the last digit (which checks the sampler); in LLaDA2's they differ.

python -m anyorder_jax.ablate --suite=configs/ablations/granularity.py --num_workers=2
"""

from anyorder_jax.evaluation.results import asked
from anyorder_jax.evaluation.suite import MEASURES, Suite, size_of

GRANULARITIES = {name: name for name in ("unit", "cell", "attribute", "token")} | {
    "units and cells": "unit:0.5,cell:0.5"
}


def get_suite(size="small"):
    chosen = size_of(size)
    recipe = "--config=configs/attribute_masking.py"
    return Suite(
        question="Should holes be units, cells, attributes or tokens?",
        variants={
            name: (recipe, f"--config.masking.granularity={g}", *chosen.train) for name, g in GRANULARITIES.items()
        },
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
        parts=("report", "likelihood"),
        measures={
            **MEASURES,
            "bound by units": asked("elbo@unit", "nll_per_cell"),
            "bound by tokens": asked("elbo@token", "nll_per_cell"),
        },
    )
