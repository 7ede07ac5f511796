"""The rate p of any-order masking: fixed, or drawn for every example from a range.

python -m anyorder_jax.ablate --suite=configs/ablations/mask_rate.py --num_workers=2
"""

from anyorder_jax.evaluation.results import asked
from anyorder_jax.evaluation.suite import MEASURES, Suite, size_of

RECIPE = "--config=configs/any_order.py"
FIXED = {"p=0.5": RECIPE, "p=0.15": "--config=configs/any_order_p15.py", "p=0.3": "--config=configs/any_order_p30.py"}


def get_suite(size="small"):
    chosen = size_of(size)
    fixed = {name: (recipe, *chosen.train) for name, recipe in FIXED.items()}
    fixed["p=0.7"] = (RECIPE, "--config.masking.rate=0.7", *chosen.train)
    ranges = {
        f"p~U({low}-{high})": (
            RECIPE, f"--config.masking.rate={low}", f"--config.masking.rate_max={high}", *chosen.train,
        )
        for low, high in ((0.15, 0.5), (0.02, 1.0))
    }  # fmt: skip
    return Suite(
        question="How much should any-order training hide?",
        variants={**fixed, **ranges},
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
        measures={**MEASURES, "nll/cell p=.15": asked("any_order@0.15", "nll_per_cell")},
    )
