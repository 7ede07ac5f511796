"""A trace of a few updates of a run, for TensorBoard's profile plugin or Perfetto (RUN/profile)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax


class Profile:
    """Traces the updates `steps` (counted from 0) of this process; call it before each update.

    The trace begins and ends when the device is done with what came before, so that it holds these updates whole and no
    others. Of a run of several processes each writes its own, named by its host. A run that is gone on with traces
    those of the updates that it does itself.

    Args:
      workdir: of the run; the trace lies in its folder `profile`.
      steps: of `log.profile_steps`; empty: nothing is done.
      say: gets a sentence for the user when the trace is written.
    """

    def __init__(self, workdir: Path, steps: range, say: Callable[[str], None]) -> None:
        self._folder, self._steps, self._say = workdir / "profile", steps, say
        self._is_on = False

    def __call__(self, number: int, state: Any) -> None:
        """Before update `number`; `state` is what the updates so far have made."""
        if self._is_on and number not in self._steps:
            jax.block_until_ready(state)
            self.close()
        elif not self._is_on and number in self._steps:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._folder))
            self._is_on = True

    def close(self) -> None:
        """Ends a trace that is still open, as that of the last update is."""
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
            self._say(f"Profile of updates {self._steps.start} to {self._steps.stop - 1}: {self._folder}")
