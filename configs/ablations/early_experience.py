"""Early experience (arXiv 2510.08558) beside its parts: what other actions lead to, before imitation or mixed into it.

    python -m anyorder_jax.ablate --suite=configs/ablations/early_experience.py --num_workers=2

Every variant has as many updates in all. "world first" is the first stage of "then imitation": a third of them.
"""

from anyorder_jax.evaluation.suite import Suite, size_of

NUM_BRANCHES = 3


def get_suite(size="small"):
    chosen = size_of(size)
    first = chosen.num_steps // 3
    both = (*chosen.train, f"--config.data.branches={NUM_BRANCHES}")

    def of_length(num_steps):
        return (*both, f"--config.train.num_steps={num_steps}", f"--config.log.validate_every_steps={first}")

    world, asked = "world first", "--config.masking.branches=0.75"
    return Suite(
        question="Does a world model of actions that the expert did not take make imitation act better?",
        variants={
            "imitation": ("--config=configs/causal_sft.py", *both),
            world: ("--config=configs/early_experience.py", *of_length(first)),
            "then imitation": (
                "--config=configs/causal_sft.py", *of_length(chosen.num_steps - first),
                "--config.model.path={run:" + world + "}",
            ),
            "half forward": (
                "--config=configs/causal_sft.py", *both, "--config.masking.order=causal:0.5,forward:0.5", asked,
            ),
            "any-order": ("--config=configs/any_order.py", *both),
        },
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
    )  # fmt: skip
