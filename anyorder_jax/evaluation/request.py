"""Request: what `evaluate` is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from anyorder_jax.acting.choosing import CHOICES
from anyorder_jax.acting.decoding import SURE, Decoding
from anyorder_jax.data.manifest import SPLITS
from anyorder_jax.evaluation import policy
from anyorder_jax.evaluation.held_out import HELD_OUT, Which

PARTS = ("report", "likelihood", "robustness", "decoding", "viewer")


@dataclass(frozen=True)
class Request:
    """What is evaluated of a checkpoint, and on what.

    environment: another level than it was trained on; empty: the same. num_episodes: rollouts, and test episodes asked
    about (as many as there are). seed: rollouts take the first seeds of `sources.seed_range(seed, "test")`, which no
    training split of any collection holds; masks and sampled actions depend on it too; None: the seed of the recorded
    episodes. output_dir: default RUN/report, with another level RUN/report/LEVEL, held out by layout "layout" below it.
    rules: how the model's logits become actions, of `policy.RULES`. num_windows: windows asked per episode and question
    at most (of `likelihood`: an eighth of it). parts: what is evaluated, of PARTS; a file each. mesh: sizes of mesh
    axes; see `asking.scorer.mesh_of`. dtype: in which the weights are held; see `weights.held_in`. choosing: of text:
    other ways in which the model chooses its actions, of `acting.choosing.CHOICES`. is_average: the running average of
    the weights (config.optimizer.ema_decay) in place of the last ones; the default output_dir then ends in "ema".
    which: which episodes: with certain goals, held out by seed or by layout. split: of text: which split's, of
    `SPLITS`; empty: see `asking.evaluation.choose_split`. decoding: of text: how an action is written.

    Raises:
      ValueError: for a number that is too small, or a name that there is not.
    """

    environment: str = ""
    num_episodes: int = 200
    seed: int | None = None
    output_dir: str = ""
    rules: Sequence[str] = policy.RULES
    num_windows: int = 8
    parts: Sequence[str] = ("report",)
    mesh: str = ""
    dtype: str = ""
    choosing: Sequence[str] = ()
    is_average: bool = False
    which: Which = Which()  # noqa: RUF009 (a tuple)
    split: str = ""
    decoding: Decoding = SURE

    def __post_init__(self) -> None:
        if self.num_episodes < 1 or self.num_windows < 1 or (self.seed is not None and self.seed < 0):
            raise ValueError(
                "expected num_episodes >= 1, num_windows >= 1 and seed >= 0, got "
                f"{self.num_episodes}, {self.num_windows}, {self.seed}."
            )
        policy.check_rules(self.rules)
        unknown = [name for name in self.parts if name not in PARTS]
        if unknown or not self.parts:
            raise ValueError(f"--parts: expected names out of {', '.join(PARTS)}, got {unknown or 'none'}.")
        strange = [name for name in self.choosing if name not in CHOICES]
        if strange:
            raise ValueError(f"--choosing: expected names out of {', '.join(CHOICES)}, got {strange}.")
        if self.split and self.split not in SPLITS:
            raise ValueError(f"--split: expected one of {', '.join(SPLITS)}, got {self.split!r}.")
        self.decoding.refuse_nonsense()
        if self.which.held_out not in HELD_OUT:
            raise ValueError(f"--held_out: expected one of {', '.join(HELD_OUT)}, got {self.which.held_out!r}.")

    @property
    def subfolder(self) -> str:
        """The folder of the report for episodes that are held out in another way."""
        return self.which.held_out if self.which.held_out != "seed" else ""

    @property
    def weights(self) -> str:
        """Which weights, as the command names them."""
        return "ema" if self.is_average else "last"
