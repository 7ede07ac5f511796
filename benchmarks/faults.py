"""Faults: what is promised, and the attempt to break it, with the real `train` command on this machine's CPU.

    python benchmarks/faults.py                                  all of it at length (100 kills)
    python benchmarks/faults.py --short                          as CI runs it (tests/test_faults.py)
    python benchmarks/faults.py --only=kill --kills=10           ten kills, bit for bit

Prints a line per attempt and a table; exits non-zero when a promise does not hold.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from faults_world import CONNECT_SECONDS, Kill, World, fill, small_disk

from anyorder_jax import command, files, process  # isort: skip
from anyorder_jax.data import sources  # isort: skip
from small_run import finish, learned, lines, wait_for_step  # isort: skip


def kill(world: World, count: int = 1) -> str:
    """kill -9 of one process (of `count`), at random moments of a run's life and inside saves; every run that reaches
    its end is compared."""
    name = f"killed-{count}"
    wanted = max(1, world.kills // (1 if count == 1 else 5))
    moments = ("training", "save", "start", "training", "save")
    done: list[tuple[str, Kill]] = []
    num_runs = 0
    while len(done) < wanted:
        moment = moments[len(done) % len(moments)]
        one = world.kill_once(name, moment, count)
        if one is None:  # it had finished: compare, and start over
            world.check_equal(name, count)
            shutil.rmtree(world.folder / name)
            num_runs += 1
            continue
        limit = process.HEARTBEAT_SECONDS + 20 + (0 if one.has_trained else CONNECT_SECONDS)
        assert one.waited < limit and not {0, process.REQUEUE} & set(one.codes), (one.waited, one.codes)
        done.append((moment, one))
        left = f", the other left {one.waited:.1f} s later with {one.codes}" if count > 1 else ""
        where = f"{len(lines(world.folder / name))} steps{', inside a save' if one.is_in_save else ''}"
        print(f"  kill {len(done)} ({moment}): {where}{left}", flush=True)
    world.finish(name, count=count)
    world.check_equal(name, count)
    by_moment = {moment: [kill for aim, kill in done if aim == moment] for moment in moments}
    counted = ", ".join(
        f"{len(kills)} {words} ({sum(kill.is_in_save for kill in kills)} of them inside a save)"
        for words, kills in (
            ("while it started", by_moment["start"]),
            ("at random moments of training", by_moment["training"]),
            ("aimed at saves", by_moment["save"]),
        )
        if kills
    )
    told = f"{counted}; {world.steps} losses and all weights of {num_runs + 1} finished run(s) equal bit for bit"
    if count > 1:
        for has_trained, when in ((True, "in training"), (False, "before the first update")):
            waited = [k.waited for _, k in done if k.has_trained == has_trained]
            if waited:
                told += f"; killed {when} ({len(waited)}), the other left after at most {max(waited):.1f} s"
    return told


def kill_one_of_two(world: World) -> str:
    """The same, a fifth as often, of one process of two: the other leaves with an error, and does not wait for it."""
    return kill(world, count=2)


def sigterm(world: World) -> str:
    """SIGTERM: a checkpoint of the current step, exit code 75, and no step done twice."""
    (one,) = world.start("stopped")
    wait_for_step(world.folder / "stopped", world.steps // 3, one)
    one.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    code, output = finish(one)
    seconds = time.monotonic() - begin
    assert code == process.REQUEUE, output
    stopped = len(lines(world.folder / "stopped"))
    output = world.finish("stopped")
    assert f"at step {stopped}." in output, output
    world.check_equal("stopped")
    return f"stopped after step {stopped} in {seconds:.1f} s with code {code}; went on there; equal bit for bit"


def damaged(world: World) -> str:
    """A flipped bit, a truncated file, a missing item in the newest checkpoint."""
    whole = world.uninterrupted()
    tried = []
    for kind in ("flipped", "truncated", "missing")[: 1 if world.is_short else 3]:
        name = f"damaged-{kind}"
        shutil.copytree(whole, world.folder / name)
        folder = world.folder / name / "checkpoints"
        newest, before = sorted((int(path.name) for path in folder.iterdir() if path.name.isdigit()), reverse=True)[:2]
        file = max(
            (f for f in (folder / str(newest) / "params").rglob("*") if f.is_file()), key=lambda f: f.stat().st_size
        )
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 4
        if kind == "missing":
            shutil.rmtree(folder / str(newest) / "params")
        else:
            file.write_bytes(content[: len(content) // 2] if kind == "truncated" else content)
        output = world.finish(name)
        assert f"{folder / str(newest)}: this checkpoint is damaged" in output, output
        assert f"at step {before}." in output, output
        world.check_equal(name)
        tried.append(kind)
    return f"{', '.join(tried)}: named, set aside, step {before} of {newest} used; equal bit for bit"


def full_disk(world: World) -> str:
    """The disk fills up while a run saves: stop, or go on until there is room, as configured. While it only logs there
    (checkpoint.remote is elsewhere): lines are lost, and that is said once."""
    told = []
    for policy in ("stop", "continue"):
        with small_disk(world.folder / f"disk-{policy}") as disk:
            name = f"disk-{policy}/run"
            log = world.folder / f"disk-{policy}.log"
            arguments = (f"--config.checkpoint.on_failure={policy}",)
            with open(log, "w", encoding="utf-8") as file:
                (one,) = world.start(name, *arguments)
                wait_for_step(world.folder / name, world.save_every * 2 + 1, one)
                one.send_signal(signal.SIGSTOP)
                ballast = fill(disk)
                one.send_signal(signal.SIGCONT)
                assert one.stdout is not None
                for line in one.stdout:
                    file.write(line)
                    if "Training goes on (checkpoint.on_failure=continue)" in line:
                        ballast.unlink()
            code = one.wait()
            output = log.read_text(encoding="utf-8", errors="replace")
            steps = sorted(int(p.name) for p in (world.folder / name / "checkpoints").iterdir() if p.name.isdigit())
            assert steps, "the last good checkpoint is gone"
            if policy == "stop":
                assert code == 1 and "a checkpoint could not be written" in output.splitlines()[-1], output
                ballast.unlink()
                assert f"Resuming {world.folder / name} at step {steps[-1]}" in world.finish(name, *arguments)
            else:
                assert code == 0 and world.steps in steps, output
            told.append(policy)
    with small_disk(world.folder / "disk-log") as disk:
        there = world.folder / "disk-log-remote"
        (one,) = world.start("disk-log/run", f"--config.checkpoint.remote={there}")
        wait_for_step(disk / "run", 3, one)
        fill(disk)
        code, output = finish(one)
        assert code == 0 and output.count("log lines are lost until") == 1, output
        assert (there / "checkpoints" / str(world.steps)).is_dir() and len(lines(disk / "run")) < world.steps
    return f"{', '.join(told)}: the last good checkpoint stayed, went on from it or past it; lines lost, training not"


def other_mesh(world: World) -> str:
    """8 -> 2 -> 4 pretend devices: the same data, masks and losses within rounding."""
    whole = world.uninterrupted()
    name, stops = "mesh", []
    for devices, fsdp in ((8, 2), (2, 1), (4, 4)):
        arguments = (f"--config.mesh.num_cpu_devices={devices}", f"--config.mesh.fsdp={fsdp}")
        if devices == 4:
            world.finish(name, *arguments)
            break
        (one,) = world.start(name, *arguments)
        wait_for_step(world.folder / name, len(lines(world.folder / name)) + 4, one)
        one.send_signal(signal.SIGTERM)
        code, output = finish(one)
        assert code == process.REQUEUE, output
        stops.append(len(lines(world.folder / name)))
    ours, theirs = world.losses(name), np.array([line["loss"] for line in lines(whole)])
    difference = float(np.max(np.abs(ours / theirs - 1)))
    assert len(ours) == world.steps and difference < (1e-4 if world.is_short else 2e-3), difference
    return f"8, 2, 4 devices, changed after steps {stops}: largest difference of {world.steps} losses {difference:.1e}"


def fewer_processes(world: World) -> str:
    """2 -> 1 processes: the same data, masks and losses within rounding."""
    whole, name = world.uninterrupted(), "fewer"
    pair = world.start(name, count=2)
    wait_for_step(world.folder / name, world.steps // 3, pair[0])
    pair[1].send_signal(signal.SIGTERM)
    ended = [finish(one) for one in pair]
    assert [code for code, _ in ended] == [process.REQUEUE] * 2, ended
    stopped = len(lines(world.folder / name))
    assert f"at step {stopped}." in world.finish(name)
    difference = float(np.max(np.abs(world.losses(name) / world.losses(whole.name) - 1)))
    assert len(world.losses(name)) == world.steps and difference < 2e-3, difference
    return f"two until step {stopped}, then one: largest difference of {world.steps} losses {difference:.1e}"


def not_finite(world: World) -> str:
    """Weights that overflow, and losses above a limit: stop or skip, with the records named."""
    overflow = ("--config.optimizer.learning_rate=1e30", "--config.optimizer.clip_norm=1e30")
    spike = (
        "--config.train.spike_factor=1.02",
        "--config.train.spike_window=3",
        "--config.loss.weights=observation:1,action:1,other:0.3",
        "--config.loss.end_weight=1.0",
    )  # it goes up and down
    for name, arguments, sentence in (("nan", overflow, "is not finite"), ("spike", spike, "times the recent median")):
        (one,) = world.start(f"{name}-stop", *arguments)
        code, output = finish(one)
        assert code == 1 and sentence in output and "trajectory BabyAI-GoToObj-v0" in output, output
        assert "Traceback" not in output, output
        output = world.finish(f"{name}-skip", *arguments, "--config.train.on_nonfinite=skip")
        assert sentence in output and "the update was not applied" in output, output
    skipped = len(re.findall("the update was not applied", output))
    (one,) = world.start("spike-killed", *spike, "--config.train.on_nonfinite=skip")
    wait_for_step(world.folder / "spike-killed", world.steps // 3, one)
    one.kill()
    finish(one)
    world.finish("spike-killed", *spike, "--config.train.on_nonfinite=skip")
    assert learned(world.folder / "spike-killed") == learned(world.folder / "spike-skip")
    return f"NaN and spikes: stopped, or skipped ({skipped} spikes, also after a kill -9 the same), records named"


def list_anew(directory: Path, shard: Path) -> None:
    """Records that were broken when they were written: the manifest knows the shard as it is."""
    manifest, name = sources.read_manifest(directory), f"{shard.parent.name}/{shard.name}"
    splits = {
        split: tuple(
            dataclasses.replace(one, sha256=sources.sha256(shard)) if one.file == name else one for one in shards
        )
        for split, shards in manifest.splits.items()
    }
    sources.write_manifest(directory, dataclasses.replace(manifest, splits=splits))


def poisoned_record(world: World) -> str:
    """A broken line and a word that no tokenizer has, in a shard: file, line and reason; or skipped and counted."""
    world.uninterrupted()
    (source,) = (path for path in world.data.iterdir() if (path / "manifest.json").is_file())
    poisoned = world.folder / "poisoned"
    shutil.copytree(source, poisoned)
    shard = next((poisoned / "train").glob("*.jsonl"))
    good = shard.read_bytes().splitlines(keepends=True)
    broken = good[3][: len(good[3]) // 2] + b"\n"
    strange = re.sub(rb'"text":"go to [^"]*"', b'"text":"go to the \xc3\xa9l\xc3\xa9phant"', good[6])
    assert strange != good[6]
    arguments = (f"--config.data.path={poisoned}",)
    for number, line, reason in ((4, broken, "broken JSON"), (7, strange, "éléphant")):
        shard.write_bytes(b"".join([*good[: number - 1], line, *good[number:]]))
        list_anew(poisoned, shard)
        (one,) = world.start(f"poisoned-{number}", *arguments)
        code, output = finish(one)
        assert code == 1 and f"{shard}:{number}: " in output and reason in output, output
    shard.write_bytes(b"".join([*good[:3], broken, *good[4:6], strange, *good[7:]]))
    list_anew(poisoned, shard)
    output = world.finish("poisoned-skip", *arguments, "--config.data.on_bad_record=skip")
    assert "2 bad record(s) skipped in all" in output and f"{shard}:4: " in output and f"{shard}:7: " in output, output
    return "broken JSON and an unknown word: file, line and reason; or 2 skipped and counted"


def surroundings(world: World) -> str:
    """Another time zone and locale, a home that cannot be written, no network, a wrong clock."""
    world.uninterrupted()
    told = ["TZ", "locale C", "HOME=/proc"]
    environment = {"TZ": "Pacific/Kiritimati", "LC_ALL": "C", "LANG": "C", "HOME": "/proc", "XDG_CACHE_HOME": "/proc"}
    wrapper: list[str] = []
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0:
        wrapper, told = ["unshare", "--net"], [*told, "no network"]
    clock = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
    if clock:  # 2001 until a signal, then today (libfaketime makes waiting slow: not the whole run)
        wrong = {
            "LD_PRELOAD": str(clock),
            "FAKETIME": "@2001-01-01 00:00:00",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        (one,) = world.start("elsewhere", environment={**environment, **wrong}, wrapper=wrapper)
        wait_for_step(world.folder / "elsewhere", world.save_every + 1, one)
        one.send_signal(signal.SIGTERM)
        code, output = finish(one)
        assert code == process.REQUEUE, output
    told.append("a clock of 2001 that jumps to today" if clock else "(a wrong clock not: no libfaketime here)")
    world.finish("elsewhere", environment=environment, wrapper=wrapper)
    world.check_equal("elsewhere")
    return f"{', '.join(told)}: equal bit for bit"


FAULTS: dict[str, Callable[[World], str]] = {
    function.__name__: function
    for function in (
        kill, kill_one_of_two, sigterm, damaged, full_disk, other_mesh, fewer_processes, not_finite,
        poisoned_record, surroundings,
    )
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="small runs, two kills")
    parser.add_argument("--only", default="", help=f"comma-separated, of {', '.join(FAULTS)}")
    parser.add_argument("--kills", type=int, default=0, help="default 100, with --short 2")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="file for what was found, written after every fault")
    options = parser.parse_args()
    names = options.only.split(",") if options.only else list(FAULTS)
    rows = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        world = World(Path(folder), options.short, options.kills, options.seed)
        for name in names:
            print(f"{name}: {FAULTS[name].__doc__}", flush=True)
            begin = time.perf_counter()
            try:
                rows.append((name, "held", FAULTS[name](world)))
            except Exception as error:  # whatever broke: the other faults are tried all the same
                rows.append((name, "BROKEN", f"{type(error).__name__}: {error}"[-2000:]))
            if options.json:
                found = [dict(zip(("fault", "promise", "tried"), row, strict=True)) for row in rows]
                files.write_whole(options.json, json.dumps(found, indent=1) + "\n")
            print(f"  {rows[-1][1]} after {time.perf_counter() - begin:.0f} s", flush=True)
    print("\n| fault | promise | tried |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    sys.exit(any(verdict != "held" for _, verdict, _ in rows))


if __name__ == "__main__":
    command.begin("faults")
    main()
