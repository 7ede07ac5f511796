"""BrowserGym: a trained run as an agent in BrowserGym's own loop (https://github.com/ServiceNow/BrowserGym), so also in
AgentLab's.

    env = gym.make("browsergym/openended", action_mapping=agent.action_set.to_python_code, ...)
    obs, _ = env.reset()
    while not is_done:
        action, info = agent.get_action(agent.obs_preprocessor(obs))
        obs, _, is_done, _, _ = env.step(action)

Its page is written by our renderer, with the numbers that BrowserGym gave the elements; those of frames, which begin
with letters there, have other numbers here, and are put back in actions. Images are not looked at. The package is
needed for `action_set` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from anyorder_jax import run_directory, weights
from anyorder_jax.acting.generator import Decoding, Generator
from anyorder_jax.acting.policy import SURE, Generated
from anyorder_jax.environments.web import calls
from anyorder_jax.environments.web.calls import Action
from anyorder_jax.environments.web.tree import nodes_of, page_text
from anyorder_jax.environments.webarena.addresses import Addresses, marked, placed
from anyorder_jax.environments.webarena.prompt import SYSTEM
from anyorder_jax.provenance import with_data_of
from anyorder_jax.task import open_task
from anyorder_jax.types import Kind, Trajectory, Unit

BUDGET = 12_000
"""Characters of a page."""
_ELEMENTS = ("bid", "from_bid", "to_bid")


class Agent:
    """Plays one episode at a time; AgentLab makes one for each.

    Args:
      policy: writes decisions.
      addresses: None for a run of small pages (MiniWoB++). For one of whole sites (WebArena) site -> URL, of those that
        have one: its episodes begin with our system text, and say where they are, with a site's mark for its URL.
      budget: characters of a page.
    """

    def __init__(self, policy: Generated, addresses: Addresses | None = None, budget: int = BUDGET) -> None:
        self._policy, self._addresses, self._budget = policy, addresses, budget
        self.reset()

    def reset(self) -> None:
        """What comes next is the beginning of another episode."""
        self._units: list[Unit] = []

    @property
    def action_set(self) -> Any:
        """Our calls, as BrowserGym's `HighLevelActionSet`. Raises ModuleNotFoundError without browsergym-core."""
        from browsergym.core.action import functions
        from browsergym.core.action.highlevel import HighLevelActionSet

        ours = [getattr(functions, name) for name in calls.FUNCTIONS if name != "noop"]  # that is always there
        return HighLevelActionSet(subsets=["custom"], custom_actions=ours, multiaction=False)

    def obs_preprocessor(self, obs: Mapping[str, Any]) -> dict[str, Any]:
        """What of BrowserGym's observation is looked at.

        Returns:
          {"goal": text, "page": our text of the page, "bids": {number here: number there}, where they differ, "error":
          why the last action was not done, "" where it was}.
        """
        nodes = obs["axtree_object"]["nodes"]
        numbers = _numbers([node.get("browsergym_id") for node in nodes])
        of_place = {i: numbers[node["browsergym_id"]] for i, node in enumerate(nodes) if node.get("browsergym_id")}
        known = obs.get("extra_element_properties") or {}
        clickable = {i for i in of_place if (known.get(nodes[i]["browsergym_id"]) or {}).get("clickable")}
        tree = [{**node, "backendDOMNodeId": i} for i, node in enumerate(nodes)]
        page = page_text(nodes_of(tree, of_place, frozenset(clickable)), self._budget)
        if self._addresses is not None:
            page = marked(f"page: {obs['url']}\n{page}", self._addresses)
        goal = "\n".join(part["text"] for part in obs["goal_object"] if part.get("type") == "text")
        bids = {number: bid for bid, number in numbers.items() if bid != number}
        return {"goal": goal, "page": page, "bids": bids, "error": str(obs.get("last_action_error") or "")}

    def get_action(self, obs: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """The next action, in BrowserGym's words, and {"think", "stats": {"passes", "tokens", "repairs"}}. One that
        does not parse, even written anew, is given as it is: BrowserGym says why in its next observation."""
        if not self._units:
            system = [Unit(Kind.SYSTEM, 0, text=SYSTEM)] if self._addresses is not None else []
            self._units = [*system, Unit(Kind.GOAL, 0, text=obs["goal"])]
        step = sum(unit.kind is Kind.ACTION for unit in self._units)
        error = f"invalid action: {' '.join(obs['error'].split())[:300]}\n" if obs["error"] else ""
        self._units.append(Unit(Kind.OBSERVATION, step, text=error + obs["page"]))
        (decision,) = self._policy.decide([Trajectory("browsergym", tuple(self._units))], self._reasons)
        self._units += decision.units
        *thoughts, action = (unit.text or "" for unit in decision.units)
        stats = {"passes": decision.num_passes, "tokens": decision.num_tokens, "repairs": decision.num_repairs}
        return self._theirs(action, obs["bids"]), {"think": "\n".join(thoughts), "stats": stats}

    def _parse(self, text: str) -> Action:
        return calls.parse(placed(text, self._addresses or {}), hosts=None)

    def _reasons(self, texts: Sequence[str]) -> list[str]:
        found = []
        for text in texts:
            try:
                self._parse(text)
                found.append("")
            except ValueError as error:
                found.append(str(error))
        return found

    def _theirs(self, text: str, bids: Mapping[str, str]) -> str:
        """An action with the numbers of its elements there."""
        try:
            action = self._parse(text)
        except ValueError:
            return text
        renamed = {k: bids.get(v, v) if k in _ELEMENTS else v for k, v in action.arguments.items()}
        return Action(action.name, renamed).text()


def _numbers(bids: Sequence[str | None]) -> dict[str, str]:
    """Their number of an element -> ours: the same where it is one, else the next that is free, in order."""
    found = {bid: bid for bid in bids if bid and bid.isascii() and bid.isdecimal()}
    free = max(map(int, found), default=0)
    for bid in bids:
        if bid and bid not in found:
            free += 1
            found[bid] = str(free)
    return found


def load(checkpoint: str, addresses: Addresses | None = None, budget: int = BUDGET, decoding: Decoding = SURE) -> Agent:
    """The agent of a run.

    Args:
      checkpoint: RUN or RUN/checkpoints/STEP.
      addresses, budget: as `Agent` takes them.
      decoding: how holes are filled.

    Raises:
      FileNotFoundError, ValueError: no such checkpoint, or one that does not write text.
    """
    meta, (run, _) = run_directory.read_meta(checkpoint), run_directory.find(checkpoint)
    config, model_config, params, tokenizer = weights.load_for_inference(checkpoint)
    task = open_task(with_data_of(config, run, meta["data"]), tokenizer)
    generator = Generator(config, model_config, params, task, decoding)
    return Agent(Generated(generator, task.decision()), addresses, budget)
