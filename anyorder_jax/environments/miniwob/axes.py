"""Axes: what makes a page harder without changing the task. All draws depend on kind, seed and step alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np

from anyorder_jax.environments.branching import draws
from anyorder_jax.environments.miniwob.folds import Options
from anyorder_jax.environments.web.tree import Node

WORDS = (
    "Archive", "Banner", "Contact", "Discover", "Explore", "Features", "Gallery", "Help", "Index", "Journal", "Links",
    "Members", "News", "Offers",
)  # fmt: skip
NOTICE, CLOSE = "Special offer", "Close offer"
_NUMBERS = 10_000
_POPUP_WITHIN, _FAILURE_WITHIN = 3, 2
"""The pop-up comes before one of the first three actions; one of the first two clicks fails."""

_ADD = """(elements => {
  const box = document.createElement('div');
  box.style.cssText = 'position: absolute; left: 420px; top: 10px; width: 300px';
  for (const [tag, text] of elements) {
    const one = document.createElement(tag);
    one.style.cssText = 'display: inline-block; margin: 4px';
    if (tag === 'input') { one.type = 'text'; one.setAttribute('aria-label', text); } else one.textContent = text;
    if (tag === 'a') one.href = '#';
    one.addEventListener('click', event => { event.preventDefault(); event.stopPropagation(); });
    box.append(one);
  }
  document.body.append(box);
})(%s)"""
_POPUP = """((notice, close) => {
  const cover = document.createElement('div'), button = document.createElement('button');
  cover.setAttribute('role', 'dialog');
  cover.setAttribute('aria-label', notice);
  cover.style.cssText = 'position: fixed; inset: 0; z-index: 2147483647; background: white';
  button.textContent = close;
  button.addEventListener('click', event => { event.stopPropagation(); cover.remove(); });
  cover.append(button);
  document.body.append(cover);
})(%s, %s)"""


def _rng(purpose: str, kind: str, *seed: int) -> np.random.Generator:
    return draws(f"miniwob {purpose}", *kind.encode(), *seed)


class Disturbance:
    """What is done to one episode.

    Args:
      options: which axes.
      kind, seed: the task.
    """

    def __init__(self, options: Options, kind: str, seed: int) -> None:
        self._options, self._kind, self._seed = options, kind, seed
        self._failing = self._drawn("failing click", _FAILURE_WITHIN) if options.click_fails else -1
        self._popup_at = self._drawn("popup", _POPUP_WITHIN) if options.has_popup else -1
        self._num_clicks = 0

    def _drawn(self, purpose: str, end: int) -> int:
        return int(_rng(purpose, self._kind, self._seed).integers(end))

    def numbering(self) -> Callable[[int], str]:
        """From an element's place to its number on the page."""
        if not self._options.is_renumbered:
            return str
        order = _rng("numbers", self._kind, self._seed).permutation(_NUMBERS)
        return lambda place: str(order[place] if place < _NUMBERS else place)

    def at(self, step: int) -> str:
        """A script that the page is to run before it is looked at, "" for none."""
        scripts = []
        if self._options.distractors and step == 0:
            rng = _rng("distractors", self._kind, self._seed)
            tags = [("button", "a", "input")[int(i)] for i in rng.integers(3, size=self._options.distractors)]
            words = rng.choice(WORDS, self._options.distractors, replace=False).tolist()
            scripts.append(_ADD % json.dumps([*zip(tags, words, strict=True)]))
        if step == self._popup_at:
            scripts.append(_POPUP % (json.dumps(NOTICE), json.dumps(CLOSE)))
        return ";".join(scripts)

    def fails(self, action: str) -> bool:
        """Whether this action is the click that does nothing."""
        if action != "click":
            return False
        self._num_clicks += 1
        return self._num_clicks - 1 == self._failing

    def seen(self, nodes: Sequence[Node], step: int) -> list[Node]:
        """The nodes that are shown at a step; the page itself always is."""
        if not self._options.dropped:
            return list(nodes)
        is_shown = _rng("dropped", self._kind, self._seed, step).random(len(nodes)) >= self._options.dropped
        return [node for number, node in enumerate(nodes) if number == 0 or is_shown[number]]
