"""Collect: the same bytes for any number of workers and any number of kills, and failures by name."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anyorder_jax.collect import Collection, collect, main
from anyorder_jax.data import sources
from anyorder_jax.environments.play import play_episode
from anyorder_jax.environments.pool import Pool
from anyorder_jax.environments.registry import make_environment
from anyorder_jax.types import Kind

LEVEL = "BabyAI-GoToObjS4-v0"  # the quickest
HALF_FAILS = "BabyAI-OpenDoorsOrderN2Debug-v0"  # the bot solves 29% of its seeds


def contents(directory: Path) -> dict[str, bytes]:
    paths = (path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def times(directory: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in directory.rglob("*.json*")}


def small(directory: Path, **changes) -> Path:
    arguments = {
        "num_episodes": 7, "num_validation_episodes": 2, "num_test_episodes": 2, "num_workers": 1,
        "episodes_per_shard": 3,
    }  # fmt: skip
    return collect(Collection(changes.pop("environment", LEVEL), **{**arguments, **changes}), directory)


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    """On a level where most seeds fail, so that replacements are drawn all the time; with noise on top."""
    one = small(tmp_path / "one", environment=HALF_FAILS, noise=0.1, num_workers=1)
    three = small(tmp_path / "three", environment=HALF_FAILS, noise=0.1, num_workers=3)
    assert contents(one) == contents(three)
    assert set(contents(one)) == {
        "manifest.json", "test/shard-00000.jsonl", "validation/shard-00000.jsonl",
        *(f"train/shard-{i:05d}.jsonl" for i in range(3)),
    }  # fmt: skip


def test_failed_seeds_are_named_and_replaced_by_the_next(tmp_path):
    small(tmp_path, environment=HALF_FAILS)
    manifest = sources.read_manifest(tmp_path)
    assert manifest.is_complete and manifest.environment == HALF_FAILS
    assert manifest.settings["expert"] == "BabyAIBot" and manifest.settings["version"].startswith("minigrid ")
    for split, count in (("train", 7), ("validation", 2), ("test", 2)):
        trajectories = sources.read_trajectories(tmp_path, split)
        solved = [trajectory.source["seed"] for trajectory in trajectories]
        failures = {seed: reason for shard in manifest.splits[split] for seed, reason in shard.failures}
        first = sources.seed_range(0, split).start
        assert len(solved) == count
        assert sorted([*solved, *failures]) == list(range(first, first + count + len(failures)))
        assert manifest.splits[split][0].seeds[0] == first
        assert manifest.splits[split][-1].seeds[1] == solved[-1] + 1
        assert all(trajectory.outcome["success"] for trajectory in trajectories)
        assert sum(shard.num_steps for shard in manifest.splits[split]) == sum(
            trajectory.outcome["num_steps"] for trajectory in trajectories
        )
        for shard in manifest.splits[split]:
            path = tmp_path / shard.file
            assert (path.stat().st_size, sources.sha256(path)) == (shard.num_bytes, shard.sha256)
    assert len(failures) > 0
    assert "ended without success" in next(iter(failures.values()))


def test_records_are_the_episodes_of_their_seeds(tmp_path):
    small(tmp_path, noise=0.3, seed=4)
    environment = make_environment(LEVEL)
    trajectories = sources.read_trajectories(tmp_path, "train")
    assert trajectories == [play_episode(environment, seed, 0.3) for seed in range(4 * 10**7, 4 * 10**7 + 7)]
    actions = [unit for trajectory in trajectories for unit in trajectory.units if unit.kind == Kind.ACTION]
    assert {action.is_expert for action in actions} == {True, False}


def test_a_complete_collection_is_left_alone(tmp_path):
    small(tmp_path)
    before = times(tmp_path)
    small(tmp_path, num_workers=2)
    assert times(tmp_path) == before


def test_a_damaged_or_missing_shard_is_made_again(tmp_path):
    small(tmp_path, environment=HALF_FAILS)
    before, times_before = contents(tmp_path), times(tmp_path)
    damaged = tmp_path / "train" / "shard-00001.jsonl"
    damaged.write_bytes(damaged.read_bytes().replace(b'"forward"', b'"dorwarf"'))
    (tmp_path / "test" / "shard-00000.jsonl").unlink()
    small(tmp_path, environment=HALF_FAILS)
    assert contents(tmp_path) == before
    kept = str(tmp_path / "train" / "shard-00002.jsonl")
    assert times(tmp_path)[kept] == times_before[kept]


def test_killed_collections_go_on_without_lost_or_doubled_episodes(tmp_path):
    """kill -9 three times, each after another shard; what was whole stays as it was."""
    command = [
        sys.executable, "-m", "anyorder_jax.collect", f"--env={LEVEL}", f"--output_dir={tmp_path / 'killed'}",
        "--num_episodes=120", "--num_validation_episodes=3", "--num_test_episodes=3", "--num_workers=2",
        "--episodes_per_shard=8",
    ]  # fmt: skip
    kept: dict[str, int] = {}
    for num_shards in (2, 5, 8):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list((tmp_path / "killed").glob("train/*.jsonl"))) < num_shards:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        listed = sources.read_manifest(tmp_path / "killed")
        assert not listed.is_complete
        paths = [tmp_path / "killed" / shard.file for shard in listed.splits["train"]]
        now = {str(path): path.stat().st_mtime_ns for path in paths}
        assert kept.items() <= now.items()
        kept = now
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wanted = Collection(
        LEVEL, num_episodes=120, num_validation_episodes=3, num_test_episodes=3, num_workers=1, episodes_per_shard=8
    )
    whole = collect(wanted, tmp_path / "whole")
    assert contents(tmp_path / "killed") == contents(whole)
    assert kept.items() <= {str(p): p.stat().st_mtime_ns for p in (tmp_path / "killed").rglob("*")}.items()


def test_other_settings_in_the_same_directory_are_refused(tmp_path):
    small(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match=r"holds another collection \(noise is 0.0, asked 0.5\)"):
        small(tmp_path, noise=0.5)
    with pytest.raises(ValueError, match=r"env is BabyAI-GoToObjS4-v0, asked BabyAI-GoToObj-v0"):
        small(tmp_path, environment="BabyAI-GoToObj-v0")
    with pytest.raises(ValueError, match=r"num_episodes is .*'train': 7.*asked .*'train': 8"):
        small(tmp_path, num_episodes=8)
    assert contents(tmp_path) == before


def test_foreign_shards_are_not_overwritten(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "shard-00000.jsonl").write_text("precious")
    with pytest.raises(ValueError, match="no manifest says what it is"):
        small(tmp_path)
    assert (tmp_path / "train" / "shard-00000.jsonl").read_text() == "precious"


def test_a_level_beyond_the_bot_ends_with_its_reasons(tmp_path):
    with pytest.raises(ValueError, match=r"failed on 50 seeds of BabyAI-KeyInBox-v0 in a row.*50 x the bot fails"):
        small(tmp_path, environment="BabyAI-KeyInBox-v0")
    assert not list(tmp_path.rglob("*.jsonl*"))


def test_an_episode_that_takes_too_long_is_stopped(tmp_path):
    with pytest.raises(ValueError, match=r"50 x no end within 0.0002 seconds"):
        small(tmp_path, max_seconds_per_episode=0.0002)


def test_a_dead_worker_is_reported():
    with (
        Pool(["-c", "import sys; sys.stdin.readline(); sys.exit(3)"], 2) as pool,
        pytest.raises(RuntimeError, match=r"a worker died \(exit code 3\) on seeds 5..7"),
    ):
        list(pool.results(range(5, 8), 3))


def test_a_pool_stops_at_the_end_of_its_seeds():
    fails_on_even = (
        "from anyorder_jax.environments.pool import serve\n"
        "serve(lambda seed: (print('noise') or seed % 2 == 1, str(seed).encode()))"
    )
    with Pool(["-c", fails_on_even], 2) as pool:
        results = list(pool.results(range(100), 20))
        assert [tuple(r) for r in results] == [(i, i % 2 == 1, str(i).encode()) for i in range(40)]
        assert len(list(pool.results(range(10), 20))) == 10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_episodes": -1}, "train episodes: expected >= 0, got -1"),
        ({"noise": 1.0}, r"noise: expected a share in \[0, 1\), got 1.0"),
        ({"seed": -1}, "seed: expected >= 0"),
        ({"num_workers": -1}, "num_workers: expected >= 0"),
        ({"max_seconds_per_episode": 0}, "max_seconds_per_episode: expected > 0"),
        ({"episodes_per_shard": 0}, "episodes_per_shard: expected >= 1"),
        ({"environment": "BabyAI-GoToObjS5-v0"}, "unknown environment .* Did you mean BabyAI-GoToObjS4-v0"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        small(tmp_path / "out", **change)
    assert not (tmp_path / "out").exists()


def test_the_command_line_says_errors_in_one_sentence(tmp_path, capsys):
    arguments = [f"--output_dir={tmp_path}", "--num_episodes=1"]
    with pytest.raises(SystemExit, match=r"^error: environments: unknown environment 'BabyAI-Goto-v0'"):
        main(["--env=BabyAI-Goto-v0", *arguments])
    with pytest.raises(SystemExit):
        main([f"--env={LEVEL}", "--num_episode=1", *arguments])
    assert "unrecognized arguments: --num_episode=1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([f"--env={LEVEL}"])
    assert "these are needed: --num_episodes, --output_dir" in capsys.readouterr().err
    main([f"--env={LEVEL}", "--num_validation_episodes=0", "--num_test_episodes=0", *arguments])
    printed = capsys.readouterr()
    assert "train: 1 episodes" in printed.out and "collect train: 1/1 episodes" in printed.err
    assert json.loads((tmp_path / "manifest.json").read_text())["splits"]["train"]["num_failures"] == 0


def test_a_full_disk_is_named_and_leaves_no_part(tmp_path):
    """A limit on the size of files refuses the write as a full disk does."""
    arguments = f"--env={LEVEL} --num_episodes=40 --num_workers=1 --output_dir={tmp_path}"
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 16; exec {sys.executable} -m anyorder_jax.collect {arguments}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "shard-00000.jsonl: could not be written (File too large)" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.jsonl*"))
