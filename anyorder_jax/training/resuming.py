"""Resuming: whether what lies in a run directory was made from these settings and data, and longer runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from anyorder_jax import paths
from anyorder_jax.collected import directory_of
from anyorder_jax.config import Config, freeze, parse_sources, path_keys
from anyorder_jax.optimizer import make_schedule
from anyorder_jax.process import say
from anyorder_jax.provenance import differences


def is_same_place(saved: str, now: str, workdir: Path) -> bool:
    """Whether a place that a run has recorded is the one that is given now, or was moved there (it is gone)."""
    if saved == now or not saved or not now or paths.is_remote(saved) or paths.is_remote(now):
        return saved == now
    found = paths.find(saved, workdir)
    return found == now or not Path(found).exists()


def are_same_sources(saved: str, now: str, workdir: Path) -> bool:
    """As `is_same_place`, of `data.sources`: the same weights, in the same order, of the same or moved places."""
    if not saved or not now:
        return saved == now
    before, after = parse_sources(saved), parse_sources(now)
    is_same = [is_same_place(*pair, workdir) for pair in zip(before, after, strict=False)]
    return [*before.values()] == [*after.values()] and all(is_same)


def refuse_other_run(
    config: Config, meta: Mapping[str, Any], fingerprint: Mapping[str, Any], workdir: Path, is_longer_fine: bool = False
) -> None:
    """Raises ValueError when the checkpoint in `workdir` was made from other settings or other data.

    Args:
      config: as it is now.
      meta: of the checkpoint, with the settings that it was made with.
      fingerprint: of the data as they are now.
      workdir: the run's directory.
      is_longer_fine: more updates than the run had are no other setting (`--extend`).
    """
    saved, now = dataclasses.asdict(freeze(meta["config"])), dataclasses.asdict(config)
    placed = {tuple(key.split(".")) for key in path_keys()} - {("data", "sources")}
    free = {"mesh", "log", "checkpoint"}  # do not change what is learned
    moved = {("data", "num_threads"), ("data", "prefetch"), ("model", "check")}
    moved |= {("data", "path"), ("data", "cache_dir")}  # the fingerprint tells whether the episodes are the same
    if config.lora.rank:
        moved.add(("model", "path"))  # the digests of the frozen weights tell whether they are the same
    if are_same_sources(saved["data"]["sources"], now["data"]["sources"], workdir):
        moved.add(("data", "sources"))
    length = saved["train"]["num_steps"]
    is_longer = config.train.num_steps > length
    if is_longer and is_longer_fine:
        moved.add(("train", "num_steps"))
    changed = [
        f"{section}.{name}: {saved[section][name]!r} -> {value!r}"
        for section, values in now.items()
        if section not in free and isinstance(values, dict)
        for name, value in values.items()
        if saved[section][name] != value and (section, name) not in moved
        if (section, name) not in placed or not is_same_place(saved[section][name], value, workdir)
    ]
    if saved["seed"] != now["seed"]:
        changed.append(f"seed: {saved['seed']} -> {now['seed']}")
    tokenizer = config.data.tokenizer or config.model.path or "built-in"
    where = f"data: {config.data.sources or directory_of(config.data)}, tokenizer {tokenizer}"
    changed += [f"{where}: {sentence}" for sentence in differences(meta["data"], fingerprint)]
    if is_longer and len(changed) == 1 and not is_longer_fine:
        raise ValueError(
            f"{workdir} holds a run of {length} updates, and train.num_steps is {config.train.num_steps}. Give "
            "--extend to train that run further, or another --workdir."
        )
    if changed:
        raise ValueError(
            f"{workdir} holds a run with other settings ({'; '.join(changed)}). Give another --workdir, or the same "
            "settings to resume it."
        )


def extend(
    config: Config, meta: Mapping[str, Any], num_done: int, schedule: Callable[[int], Any], workdir: Path
) -> list[int]:
    """The lengths from which a run was extended so far; when `config` is longer than the checkpoint's, so it is now,
    and this is told.

    Args:
      config: as it is now.
      workdir: the run's directory.
      meta: of the checkpoint that the run goes on from. num_done: its updates.
      schedule: learning rate of an update, of the new length.

    Raises:
      ValueError: when the run has not come to its end: its remaining updates would follow another schedule.
    """
    extended = list(meta.get("extended_after", ()))
    old = freeze(meta["config"])
    length, longer = old.train.num_steps, config.train.num_steps
    if longer == length:
        return extended
    if num_done < length:
        raise ValueError(
            f"{workdir}: --extend is for a run that is finished; this one is at update {num_done} of {length}. Finish "
            f"it with --config.train.num_steps={length} first."
        )
    was = float(make_schedule(old.optimizer, length)(length - 1))
    now, end = float(schedule(length)), float(schedule(longer - 1))
    say(
        f"Extending {workdir} from {length} to {longer} updates: optimizer moments and data order go on. The learning "
        f"rate follows the schedule of {longer} updates: it was {was:.3g}, is {now:.3g} now and ends at {end:.3g}."
    )
    return [*extended, length]
