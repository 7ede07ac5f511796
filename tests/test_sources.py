"""Sources: what is written is read back, and what is broken is named with its file, line and remedy."""

import dataclasses
import json
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from anyorder_jax.data import join, overlap, sources
from anyorder_jax.types import Kind, Trajectory, Unit


def image() -> list:
    return [[[2, 5, 0] for _ in range(7)] for _ in range(7)]


def a_trajectory(name: str = "level/0") -> Trajectory:
    return Trajectory(
        id=name,
        units=(
            Unit(Kind.GOAL, 0, text="go to the red ball"),
            Unit(Kind.OBSERVATION, 0, data={"image": image(), "direction": 3}),
            Unit(Kind.ACTION, 0, text="left", is_expert=False),
            Unit(Kind.OBSERVATION, 1, data={"image": image(), "direction": 2}),
        ),
        outcome={"success": True, "return": 0.9, "num_steps": 1},
        source={"environment": "level", "seed": 0},
    )


def write_split(directory: Path, split: str, trajectories: list[Trajectory], listed: int | None = None) -> Path:
    """One shard and a manifest that names it. `listed`: the number of episodes that the manifest claims."""
    path = directory / split / "shard-00000.jsonl"
    num_bytes, digest = sources.write_shard(path, map(sources.encode, trajectories))
    assert sources.sha256(path) == digest and path.stat().st_size == num_bytes
    count = len(trajectories) if listed is None else listed
    shard = sources.Shard(f"{split}/{path.name}", count, count, num_bytes, digest)
    sources.write_manifest(directory, sources.Manifest("level", {"seed": 0}, {split: (shard,)}))
    return path


def list_anew(directory: Path) -> None:
    """Writes the digests of the shards as they are into the manifest."""
    manifest = sources.read_manifest(directory)
    splits = {
        split: tuple(dataclasses.replace(shard, sha256=sources.sha256(directory / shard.file)) for shard in shards)
        for split, shards in manifest.splits.items()
    }
    sources.write_manifest(directory, dataclasses.replace(manifest, splits=splits))


texts = st.text(max_size=20)
json_values = st.recursive(st.none() | st.booleans() | st.integers() | texts, st.lists, max_leaves=4)
units = st.builds(
    Unit,
    kind=st.sampled_from([Kind.GOAL, Kind.THOUGHT, Kind.ACTION, Kind.TOOL, Kind.USER, Kind.REWARD]),
    step=st.just(2),
    text=texts,
    is_expert=st.booleans(),
    branches=st.lists(st.dictionaries(texts, json_values, max_size=2), max_size=2).map(tuple),
) | st.builds(
    Unit,
    kind=st.just(Kind.OBSERVATION),
    step=st.just(2),
    data=st.dictionaries(texts, json_values, max_size=3),  # whatever a world's observations look like
)


@given(
    st.builds(
        Trajectory,
        id=st.text(min_size=1, max_size=20),
        units=st.lists(units, min_size=1, max_size=4).map(tuple),
        outcome=st.dictionaries(texts, json_values, max_size=2),
        source=st.dictionaries(texts, json_values, max_size=2),
    )
)
@settings(max_examples=100, deadline=None)
def test_records_are_the_inverse_of_trajectories(trajectory):
    line = sources.encode(trajectory)
    record = json.loads(line)
    assert b"\n" not in line
    assert sources.record_to_trajectory(record) == trajectory
    assert sources.trajectory_to_record(sources.record_to_trajectory(record)) == record


def test_a_split_is_read_as_it_was_written(tmp_path):
    trajectories = [a_trajectory(f"level/{i}") for i in range(5)]
    write_split(tmp_path, "train", trajectories)
    assert sources.read_trajectories(tmp_path, "train") == trajectories
    assert sources.read_trajectories(tmp_path, "train", limit=3) == trajectories[:3]
    with pytest.raises(ValueError, match="asked for 6 episodes, but there are 5"):
        sources.read_trajectories(tmp_path, "train", limit=6)


def test_compressed_shards_are_read_alike(tmp_path):
    trajectories = [a_trajectory(f"level/{i}") for i in range(5)]
    path = write_split(tmp_path, "train", trajectories)
    compressed = path.with_name(path.name + ".zst")
    compressed.write_bytes(zstandard.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"both plain and as \.zst"):
        sources.read_trajectories(tmp_path, "train")
    path.unlink()
    assert sources.read_trajectories(tmp_path, "train") == trajectories
    compressed.write_bytes(b"no Zstandard at all")
    with pytest.raises(ValueError, match="broken Zstandard file"):
        sources.read_trajectories(tmp_path, "train")


def pack(path: Path, num_frames: int = 1) -> Path:
    """Compresses a shard, in one or several frames, in its place."""
    content, packed = path.read_bytes(), path.with_name(path.name + ".zst")
    size = -(-len(content) // num_frames)
    parts = [content[i : i + size] for i in range(0, len(content), size)]
    packed.write_bytes(b"".join(zstandard.compress(part) for part in parts))
    path.unlink()
    return packed


def change(path: Path) -> None:
    """One word of one action, as many bytes as before."""
    is_packed, content = path.suffix == ".zst", path.read_bytes()
    if is_packed:
        content = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True).read()
    changed = content.replace(b'"text":"left"', b'"text":"lift"', 1)
    assert changed != content and len(changed) == len(content)
    path.write_bytes(zstandard.compress(changed) if is_packed else changed)


@pytest.mark.parametrize("packing", ["plain", "packed", "packed in two frames", "listed as packed"])
@pytest.mark.parametrize("limit", [0, 2])
def test_a_shard_that_is_not_what_the_manifest_says_is_refused_by_name(tmp_path, packing, limit):
    trajectories = [a_trajectory(f"level/{i}") for i in range(5)]
    path = write_split(tmp_path, "train", trajectories)
    if packing != "plain":
        path = pack(path, 2 if "two" in packing else 1)
    if packing == "listed as packed":
        manifest = sources.read_manifest(tmp_path)
        (shard,) = manifest.splits["train"]
        shard = dataclasses.replace(shard, file=f"train/{path.name}", sha256=sources.sha256(path))
        sources.write_manifest(tmp_path, dataclasses.replace(manifest, splits={"train": (shard,)}))
    seen = {}
    found = sources.read_trajectories(tmp_path, "train", limit, digests=seen)
    assert found == trajectories[: limit or None]
    (shard,) = sources.read_manifest(tmp_path).splits["train"]
    assert seen == sources.digests(tmp_path) == {"train/shard-00000.jsonl": shard.sha256}
    assert sources.read_record(path, 1) == trajectories[1]
    change(path)  # the first record, or behind the limit: the whole shard counts
    for read in (
        lambda: sources.read_trajectories(tmp_path, "train", limit),
        lambda: sources.read_trajectories(tmp_path, "train", limit, [].append),
        lambda: sources.read_record(path, 4),
        lambda: sources.digests(tmp_path),
    ):
        with pytest.raises(ValueError, match=r"other contents than .*manifest\.json says") as error:
            read()
        assert str(error.value).startswith(f"{path}: ")


def test_shards_that_nobody_listed_are_known_by_their_contents(tmp_path):
    path = tmp_path / "train" / "mine.jsonl"
    sources.write_shard(path, [sources.encode(a_trajectory())])
    sources.write_manifest(tmp_path, sources.Manifest("level"))
    before = sources.digests(tmp_path)
    change(path)
    after = sources.digests(tmp_path)
    assert before.keys() == after.keys() == {"train/mine.jsonl"} and before != after


def test_own_shards_need_no_listing(tmp_path):
    sources.write_shard(tmp_path / "train" / "mine.jsonl", [sources.encode(a_trajectory())])
    sources.write_manifest(tmp_path, sources.Manifest("level"))
    assert sources.read_trajectories(tmp_path, "train") == [a_trajectory()]


def broken(change) -> bytes:
    record = sources.trajectory_to_record(a_trajectory("level/1"))
    change(record)
    return json.dumps(record).encode()


def broken_unit(index: int, **changes) -> bytes:
    return broken(lambda record: record["units"][index].update(changes))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "level/1", "units": [', "broken JSON"),
        (b"", "broken JSON"),
        (b"\xff\xfe", "broken JSON"),
        (b"[1, 2]", "expected a JSON object"),
        (broken(lambda r: r.pop("outcome")), "expected a field 'outcome'"),
        (broken(lambda r: r.update(extra=1)), r"got \['extra'\]"),
        (broken(lambda r: r.update(units=[])), "units: expected a list of at least one unit"),
        (broken(lambda r: r.update(source=None)), "source: expected an object, got None"),
        (broken(lambda r: r["units"][0].pop("kind")), r"units\[0\]: expected a field 'kind'"),
        (broken_unit(0, kind="gaol"), r"units\[0\].kind: .*goal.*got 'gaol'"),
        (broken_unit(0, is_exprt=True), r"units\[0\]: .*got \['is_exprt'\]"),
        (broken(lambda r: r["units"][2].pop("text")), r"units\[2\]: expected either 'text' or 'data'"),
        (broken_unit(3, text="x"), r"units\[3\]: expected either 'text' or 'data'"),
        (broken_unit(3, step=-1), r"units\[3\].step: expected an integer >= 0, got -1"),
        (broken_unit(0, step=1), r"units\[1\].step: expected units in order of time"),
        (broken_unit(2, is_expert="no"), r"units\[2\].is_expert: expected true or false"),
        (broken_unit(2, branches=[1]), r"units\[2\].branches: expected a list of objects"),
        (sources.encode(a_trajectory("level/0")), "expected each id once, got 'level/0'"),
    ],
)  # fmt: skip
def test_a_broken_line_is_named(tmp_path, line, message):
    path = write_split(tmp_path, "train", [a_trajectory("level/0"), a_trajectory("level/1")])
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], line, lines[0]]) + b"\n")
    with pytest.raises(ValueError, match=message) as error:
        sources.read_trajectories(tmp_path, "train")
    assert str(error.value).startswith(f"{path}:2: ")
    assert "orrect or remove this line, or collect again." in str(error.value)


def test_bad_lines_can_be_left_out_and_are_named(tmp_path):
    trajectories = [a_trajectory(f"level/{i}") for i in range(4)]
    path = write_split(tmp_path, "train", trajectories)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], b"{", lines[0], lines[3]]) + b"\n")
    list_anew(tmp_path)  # records that were broken when they were written
    said = []
    assert sources.read_trajectories(tmp_path, "train", 0, said.append) == [trajectories[0], trajectories[3]]
    assert [sentence.split(": ")[0] for sentence in said] == [f"{path}:2", f"{path}:3"]
    assert sources.read_trajectories(tmp_path, "train", 4, said.append) == [trajectories[0], trajectories[3]]
    assert sources.place_of(tmp_path, "level/3") == f"{path}:4"
    path.write_bytes(b"\n".join([lines[0], b"{"]) + b"\n")
    with pytest.raises(ValueError, match=r"2 episodes, but .*manifest.json says 4"):
        sources.read_trajectories(tmp_path, "train", 0, said.append)


def test_collections_of_different_seeds_become_one(tmp_path):
    parts = [tmp_path / f"part-{seed}" for seed in range(2)]
    for seed, part in enumerate(parts):
        path = write_split(part, "train", [a_trajectory(f"level/{seed}{i}") for i in range(2)])
        manifest = sources.read_manifest(part)
        sources.write_manifest(part, dataclasses.replace(manifest, settings={"seed": seed, "noise": 0.0}))
    joined = join.join(parts, tmp_path / "all")
    assert joined.settings["seed"] == [0, 1] and joined.settings["num_episodes"] == {"train": 4}
    ids = [trajectory.id for trajectory in sources.read_trajectories(tmp_path / "all", "train")]
    assert ids == ["level/00", "level/01", "level/10", "level/11"]
    assert (tmp_path / "all" / "train" / "shard-00001.jsonl").read_bytes() == path.read_bytes()
    with pytest.raises(ValueError, match="holds a collection already"):
        join.join(parts, tmp_path / "all")
    pack(parts[0] / "train" / path.name)
    join.join(parts, tmp_path / "packed")
    assert ids == [trajectory.id for trajectory in sources.read_trajectories(tmp_path / "packed", "train")]
    with pytest.raises(ValueError, match=r"different seeds, got \[0, 0\]"):
        join.join([parts[0], parts[0]], tmp_path / "twice")
    sources.write_manifest(parts[1], dataclasses.replace(manifest, settings={"seed": 1, "noise": 0.1}))
    with pytest.raises(ValueError, match=r"part-1: level, {'noise': 0.1}; expected level, {'noise': 0.0} like"):
        join.join(parts, tmp_path / "mixed")


def test_held_out_episodes_that_are_training_episodes_are_counted(tmp_path):
    """Ids, seeds and where they were collected do not matter; a start is what stands before the first decision."""
    known = [a_trajectory(f"level/{i}") for i in range(2)]
    twin = dataclasses.replace(known[0], id="level/9", source={"environment": "level", "seed": 9})
    longer = dataclasses.replace(
        twin, id="level/10", units=(*twin.units[:2], Unit(Kind.THOUGHT, 0, text="so"), *twin.units[2:])
    )
    other_goal = dataclasses.replace(twin, id="level/11", units=(Unit(Kind.GOAL, 0, text="wait"), *twin.units[1:]))
    looks = {"image": image(), "direction": 0}
    other_view = (twin.units[0], Unit(Kind.OBSERVATION, 0, data=looks), *twin.units[2:])
    held_out = [twin, longer, other_goal, dataclasses.replace(twin, id="level/12", units=other_view)]
    parts = [tmp_path / "train-part", tmp_path / "test-part"]
    for seed, (part, split, found) in enumerate(zip(parts, ("train", "test"), (known, held_out), strict=True)):
        write_split(part, split, found)
        manifest = sources.read_manifest(part)
        sources.write_manifest(part, dataclasses.replace(manifest, settings={"seed": seed}))
    expected = {"num_episodes": 4, "num_identical": 1, "num_same_start": 2}
    assert overlap.Known.of(known).counts(held_out) == expected
    assert overlap.Known.of(known).counts([]) == {"num_episodes": 0, "num_identical": 0, "num_same_start": 0}
    assert (
        join.join(parts, tmp_path / "all").overlap
        == sources.read_manifest(tmp_path / "all").overlap
        == {"test": expected}
    )
    change(parts[1] / "test" / "shard-00000.jsonl")
    with pytest.raises(ValueError, match="other contents than"):
        join.join(parts, tmp_path / "damaged")
    assert not (tmp_path / "damaged" / "manifest.json").exists()


def test_missing_places_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere: no such directory. Collect episodes"):
        sources.read_trajectories(tmp_path / "nowhere", "train")
    with pytest.raises(FileNotFoundError, match=r"manifest.json: not found"):
        sources.read_trajectories(tmp_path, "train")
    path = write_split(tmp_path, "train", [a_trajectory()])
    with pytest.raises(FileNotFoundError, match=r"test: no \*.jsonl .* no test split"):
        sources.read_trajectories(tmp_path, "test")
    with pytest.raises(ValueError, match="split 'dev' is unknown; expected one of train, validation, test"):
        sources.read_trajectories(tmp_path, "dev")
    stray = path.with_name("shard-00001.jsonl")
    path.rename(stray)
    with pytest.raises(FileNotFoundError, match=r"shard-00000.jsonl: listed in .* but not there"):
        sources.read_trajectories(tmp_path, "train")
    stray.rename(path)
    stray.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match=r"shard-00001\.jsonl: not listed in"):
        sources.read_trajectories(tmp_path, "train")


def test_lost_lines_are_noticed(tmp_path):
    write_split(tmp_path, "train", [a_trajectory()], listed=2)
    with pytest.raises(ValueError, match=r"1 episodes, but .*manifest.json says 2"):
        sources.read_trajectories(tmp_path, "train")


def test_manifests_round_trip(tmp_path):
    shard = sources.Shard("train/shard-00000.jsonl", 2, 9, 100, "ab", (10, 14), ((11, "why"), (13, "so")))
    overlap = {"test": {"num_episodes": 3, "num_identical": 1, "num_same_start": 2}}
    splits = {"train": (shard,), "test": ()}
    manifest = sources.Manifest("level", {"noise": 0.5}, splits, is_complete=False, overlap=overlap)
    sources.write_manifest(tmp_path, manifest)
    assert sources.read_manifest(tmp_path) == manifest
    with pytest.raises(ValueError, match=r"was interrupted\. Run it again"):
        sources.read_trajectories(tmp_path, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema_version=2), "schema_version 2, but this program reads 1"),
        (lambda c: c.pop("schema_version"), "expected JSON with a schema_version"),
        (lambda c: c.pop("environment"), "missing or malformed .*environment"),
        (lambda c: c["splits"]["train"]["shards"][0].pop("sha256"), "missing or malformed .*sha256"),
        (lambda c: c["splits"]["train"]["shards"][0].update(seeds=[1]), "missing or malformed"),
    ],
)
def test_a_broken_manifest_is_named(tmp_path, change, message):
    write_split(tmp_path, "train", [a_trajectory()])
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as error:
        sources.read_manifest(tmp_path)
    assert str(path) in str(error.value) and "ollect again" in str(error.value)


def test_a_manifest_that_is_no_json_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match=r"manifest\.json: expected JSON"):
        sources.read_manifest(tmp_path)


def test_a_shard_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "train" / "shard-00000.jsonl"

    def interrupted():
        yield b"{}"
        assert not path.exists()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sources.write_shard(path, interrupted())
    assert list(path.parent.iterdir()) == []


def test_a_disk_that_refuses_is_named(tmp_path):
    (tmp_path / "train").write_text("a file where a directory should be")
    with pytest.raises(OSError, match=r"shard.jsonl: could not be written .* Make room or choose another"):
        sources.write_shard(tmp_path / "train" / "shard.jsonl", [b"{}"])


@given(st.lists(st.integers(0, 2**32), min_size=2, max_size=2, unique=True))
def test_no_two_splits_share_a_seed(seeds):
    ranges = [sources.seed_range(seed, split) for seed in seeds for split in sources.SPLITS]
    for i, one in enumerate(ranges):
        assert len(one) >= 10**6
        for other in ranges[i + 1 :]:
            assert one.stop <= other.start or other.stop <= one.start
    assert sources.seed_range(seeds[0], "train").start == seeds[0] * 10**7


def test_unknown_splits_and_seeds_are_refused():
    with pytest.raises(ValueError, match="split 'dev' is unknown"):
        sources.seed_range(0, "dev")
    with pytest.raises(ValueError, match="seed must be >= 0, got -1"):
        sources.seed_range(-1, "train")
