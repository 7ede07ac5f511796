"""Learning from watching, MTM's question (2305.02968, section 4.4): actions are known in 5% of the episodes only.

python -m anyorder_jax.ablate --suite=configs/ablations/heteromodal.py --num_workers=2
"""

from anyorder_jax.evaluation.suite import Suite, size_of

WATCHED = "--config.data.action_free_share=0.95"
FEW = "--config.data.num_episodes=250"  # 5% of 5,000


def get_suite(size="small"):
    chosen = size_of(size)
    any_order = ("--config=configs/any_order.py", *chosen.train)
    causal = ("--config=configs/causal_sft.py", *chosen.train)
    return Suite(
        question="Do episodes without actions help a policy that knows the actions of few?",
        variants={
            "any-order 5% + 95% watched": (*any_order, WATCHED),
            "any-order 5% alone": (*any_order, FEW),
            "causal 5% alone": (*causal, FEW),
            "any-order all actions": any_order,
            "causal all actions": causal,
        },
        seeds=range(chosen.num_seeds),
        evaluate=chosen.evaluate,
    )
