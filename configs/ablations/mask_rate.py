"""The rate p of any-order masking: fixed, or drawn for every example from a range.

python -m anyorder_jax.ablate --suite=configs/ablations/mask_rate.py --num_workers=2
"""

from anyorder_jax.evaluation.suite import MEASURES, Suite, size_of

RECIPE = "--config=configs/any_order.py"


def get_suite(size="small"):
    chosen = size_of(size)
    fixed = {f"p={rate}": (RECIPE, f"--config.masking.rate={rate}", *chosen.train) for rate in (0.5, 0.15, 0.3)}
    ranges = {
        f"p~U({low},{high})": (
            RECIPE, f"--config.masking.rate={low}", f"--config.masking.rate_max={high}", *chosen.train,
        )
        for low, high in ((0.15, 0.5), (0.02, 1.0))
    }  # fmt: skip
    return Suite(
        question="How much should any-order training hide?",
        variants={**fixed, **ranges},
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
        measures={**MEASURES, "nll/cell p=.15": "world_model.any_order@0.15.model.nll_per_cell"},
    )
