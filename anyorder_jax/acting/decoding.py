"""Decoding: how holes are filled."""

from __future__ import annotations

import math
from typing import NamedTuple

from anyorder_jax import decode


class Decoding(NamedTuple):
    """How holes are filled. threshold: of `decode.make_fill`. temperature, top_p: of `decode.Draws`. seed: of what is
    drawn. is_left_to_right: whether units are written token by token from left to right. reuse_prefix: whether what
    stands before the holes is computed once for each unit (`prefix_decode`: an approximation with full attention; block
    diffusion does so anyway, exactly)."""

    threshold: float = 0.95
    temperature: float = 0.0
    seed: int = 0
    is_left_to_right: bool = False
    top_p: float = 1.0
    reuse_prefix: bool = False

    def refuse_devices(self, num_devices: int) -> None:
        """Raises ValueError where weights on so many devices cannot be decoded so.

        Args:
          num_devices: of the mesh.
        """
        if self.reuse_prefix and num_devices > 1:
            raise ValueError(
                f"--reuse_prefix: expected weights on one device, they lie on {num_devices}. Leave it out, or say "
                "--mesh=data:1."
            )

    @property
    def draws(self) -> decode.Draws:
        """How tokens are drawn."""
        return decode.Draws(self.temperature, self.top_p)

    def refuse_nonsense(self, num_samples: int = 1) -> None:
        """Raises ValueError for numbers that mean nothing, by the names of the flags.

        Args:
          num_samples: answers that are asked for.
        """
        if num_samples < 1:
            raise ValueError(f"--num_samples: expected at least 1, got {num_samples}.")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"--temperature: expected 0 (the likeliest token) or more, got {self.temperature}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"--top_p: expected a share of the probability above 0 and at most 1, got {self.top_p}.")
        if not self.threshold >= 0:
            raise ValueError(f"--threshold: expected a probability (above 1: one token a pass), got {self.threshold}.")
        if self.seed < 0:
            raise ValueError(f"--seed: expected 0 or more, got {self.seed}.")
        if not self.temperature and num_samples > 1:
            raise ValueError("--num_samples: several samples are all the same without --temperature.")
        if not self.temperature and self.top_p < 1:
            raise ValueError("--top_p: nothing is drawn without --temperature.")


SURE = Decoding()
