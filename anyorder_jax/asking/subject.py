"""Subject: what is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from anyorder_jax.config import Config


class Subject(NamedTuple):
    """What is evaluated: a checkpoint, on one source of data.

    path: as it was named, RUN (newest checkpoint) or RUN/checkpoints/STEP. run, step: what it is. config: of a run on
    this source alone, with the place where its data lie now. began: their fingerprint as the run stored it. source: the
    name of the source of a mixture; else empty. is_average: the running average of the weights
    (config.optimizer.ema_decay) in place of the last ones.
    """

    path: str
    run: Path
    step: int
    config: Config
    began: Mapping[str, Any]
    source: str = ""
    is_average: bool = False
