"""Success and NLL under disturbances (`anyorder_jax/environments/disturbances.py`), any-order against causal.

python -m anyorder_jax.ablate --suite=configs/ablations/robustness.py --num_workers=2
"""

from anyorder_jax.evaluation.suite import Suite, size_of


def get_suite(size="small"):
    chosen = size_of(size)
    return Suite(
        question="Which order still acts when observations, actions or missions are disturbed?",
        variants={
            "any-order p=0.5": ("--config=configs/any_order.py", *chosen.train),
            "causal": ("--config=configs/causal_sft.py", *chosen.train),
            "mixture": ("--config=configs/mixture.py", *chosen.train),
        },
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
        parts=("report", "robustness", "decoding", "viewer"),
        more={"robustness": ("--rules=sampled",)},  # 35 rollouts a rule
    )
