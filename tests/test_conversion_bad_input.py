"""What the conversion refuses, by name, and that nothing half-written is left behind: errors, full disks, kills."""

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import checkpoints
from conversion.__main__ import main
from conversion.merge import convert

INDEX = "model.safetensors.index.json"
SHARD = "model-00001-of-00002.safetensors"
NAME = "model.layers.1.mlp.experts.3.up_proj.weight"
ROOT = Path(__file__).parents[1]


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def edit_header(path, change):
    """Rewrites the JSON header of a shard, the data staying as it is."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length].decode()
    changed = change(text)
    path.write_bytes(len(changed).to_bytes(8, "little") + changed.encode() + data[8 + length :])


def edit_config(directory, **values):
    edit_json(directory / "config.json", lambda config: config.update(values))


def rewrite(directory, change):
    """Writes the tensors again after `change(tensors)`."""
    tensors = checkpoints.random_tensors(checkpoints.CONFIG)
    change(tensors)
    checkpoints.write(directory, tensors=tensors)


def truncate(directory):
    os.truncate(directory / SHARD, (directory / SHARD).stat().st_size - 2)


def grow(directory):
    (directory / SHARD).write_bytes((directory / SHARD).read_bytes() + b"\0\0")


def swap_offsets(text):
    """Two tensors of the same size share the bytes of the first."""
    header = json.loads(text)
    same = [n for n, v in header.items() if v.get("shape") == [8, 16]]
    header[same[1]]["data_offsets"] = header[same[0]]["data_offsets"]
    return json.dumps(header)


def double_in_header(text):
    header = json.loads(text)
    first = next(name for name in header if name != "__metadata__")
    return text.rstrip()[:-1] + f', "{first}": {json.dumps(header[first])}' + "}"


def double_across_shards(directory):
    other = {"model.norm.weight": checkpoints.read(directory)["model.norm.weight"]}
    for path in directory.glob("*.safetensors"):
        save_file(checkpoints.read_one(path) | other, path, metadata={"format": "pt"})


def set_index(name, file_name):
    return lambda index: index["weight_map"].__setitem__(name, file_name)


def link_outside(directory):
    (directory / SHARD).rename(directory.parent / "elsewhere.safetensors")
    (directory / SHARD).symlink_to(directory.parent / "elsewhere.safetensors")


BAD = {
    "truncated shard": (truncate, r"00001-of-00002\.safetensors: the header promises \d+ bytes.*truncated"),
    "longer shard": (grow, "longer than its header says"),
    "cut within the header": (lambda d: os.truncate(d / SHARD, 100), "truncated or of another format"),
    "empty shard": (lambda d: os.truncate(d / SHARD, 0), "truncated or of another format"),
    "header that is no JSON": (
        lambda d: edit_header(d / SHARD, lambda t: t.replace("{", "[", 1)), "the safetensors header is not usable",
    ),
    "overlapping tensors": (lambda d: edit_header(d / SHARD, swap_offsets), "overlaps the tensor before it"),
    "shape that does not fit its bytes": (
        lambda d: edit_header(d / SHARD, lambda t: t.replace("[8,16]", "[8,17]", 1)), "takes 272 bytes, .* span 256",
    ),
    "dtype that does not fit its bytes": (
        lambda d: edit_header(d / SHARD, lambda t: t.replace('"BF16"', '"F32"', 1)), "its offsets span",
    ),
    "dtype that does not exist": (
        lambda d: edit_header(d / SHARD, lambda t: t.replace("BF16", "BF17", 1)), "unknown dtype 'BF17'",
    ),
    "doubled name in a header": (lambda d: edit_header(d / SHARD, double_in_header), "stands there twice"),
    "doubled name across shards": (double_across_shards, r"model\.norm\.weight is doubled"),
    "doubled key in the index": (
        lambda d: (d / INDEX).write_text((d / INDEX).read_text().replace(
            '"weight_map": {', '"weight_map": {"lm_head.weight": "a.safetensors",', 1)), "stands there twice",
    ),
    "index that names the wrong shard": (
        lambda d: edit_json(d / INDEX, set_index("model.word_embeddings.weight", "model-00002-of-00002.safetensors")),
        "says that model.word_embeddings.weight is in model-00002.*but it is in model-00001",
    ),
    "index that names a missing shard": (
        lambda d: edit_json(d / INDEX, set_index("lm_head.weight", "model-00003-of-00002.safetensors")), "not there",
    ),
    "index that names a missing tensor": (
        lambda d: edit_json(d / INDEX, set_index("model.extra", SHARD)), "but no shard has it",
    ),
    "index without a tensor": (
        lambda d: edit_json(d / INDEX, lambda i: i["weight_map"].pop("lm_head.weight")), "does not list lm_head.weight",
    ),
    "index that points outside": (
        lambda d: edit_json(d / INDEX, set_index("lm_head.weight", "../other/model.safetensors")),
        "points to '../other/model.safetensors', outside of the directory",
    ),
    "index that points to the root": (
        lambda d: edit_json(d / INDEX, set_index("lm_head.weight", "/etc/passwd")), "outside of the directory",
    ),
    "link that points outside": (link_outside, "is a link to .*elsewhere.safetensors, outside"),
    "index without a map": (lambda d: (d / INDEX).write_text("{}"), "expected a 'weight_map'"),
    "missing index": (lambda d: (d / INDEX).unlink(), f"expected {INDEX} or a single model.safetensors"),
    "shard that the index does not know": (
        lambda d: (d / "old.safetensors").write_bytes((d / SHARD).read_bytes()), "old.safetensors is not in",
    ),
    "missing expert": (
        lambda d: rewrite(d, lambda t: t.pop(NAME)), "1 tensors are missing: model.layers.1.mlp.experts.3.up_proj",
    ),
    "unknown tensor": (
        lambda d: rewrite(d, lambda t: t.update({"model.layers.1.mlp.gate.expert_bais": t["model.norm.weight"]})),
        "1 tensors are unknown: model.layers.1.mlp.gate.expert_bais",
    ),
    "wrong shape": (
        lambda d: rewrite(d, lambda t: t.update({NAME: t[NAME].T.copy()})),
        r"experts.3.up_proj.weight has shape \[16, 8\], expected \[8, 16\]",
    ),
    "wrong dtype": (
        lambda d: rewrite(d, lambda t: t.update({NAME: t[NAME].astype(np.int8)})), "has dtype I8, expected one of F32",
    ),
    "experts of two dtypes": (
        lambda d: rewrite(d, lambda t: t.update({NAME: t[NAME].astype(np.float32)})),
        "the experts have different dtypes",
    ),
    "split and merged experts": (
        lambda d: rewrite(d, lambda t: t.update({"model.layers.1.mlp.experts.up_proj": np.ones(8, np.float32)})),
        "expected one layout of experts, found both",
    ),
    "no experts": (
        lambda d: rewrite(d, lambda t: [t.pop(n) for n in list(t) if ".experts." in n]), "no mixture-of-experts",
    ),
    "another model family": (
        lambda d: edit_config(d, model_type="llama"), "model_type is 'llama', expected one of",
    ),
    "config without a size": (
        lambda d: edit_json(d / "config.json", lambda c: c.pop("num_experts")), "the key 'num_experts' is missing",
    ),
    "config with a bad size": (lambda d: edit_config(d, hidden_size="16"), "'hidden_size' is '16', expected a whole"),
    "config that is no JSON": (lambda d: (d / "config.json").write_text("{"), "the config is not usable"),
    "no config": (lambda d: (d / "config.json").unlink(), "there is no config.json"),
    "pickle .bin": (lambda d: (d / "pytorch_model.bin").touch(), "refusing the pickle 'pytorch_model.bin'"),
    "pickle .pt": (lambda d: (d / "model.pt").touch(), "refusing the pickle 'model.pt'"),
    "pickle in the index": (
        lambda d: edit_json(d / INDEX, set_index("lm_head.weight", "pytorch_model.bin.index")), "no safetensors file",
    ),
    "a pickle called safetensors": (
        lambda d: (d / SHARD).write_bytes(b"\x80\x04\x95" + b"\0" * 200), "truncated or of another format",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_by_name(case, tmp_path, capsys):
    spoil, message = BAD[case]
    source = checkpoints.write(tmp_path / "source")
    spoil(source)
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "m", "merged")
    assert sorted(os.listdir(tmp_path)) == before  # nothing half-written
    assert main(["merge", "--input_path", str(source), "--output_path", str(tmp_path / "m")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="there is none"):
        convert(tmp_path / "nothing", tmp_path / "m", "merged")


def test_the_other_way_round_is_refused(tmp_path):
    source = checkpoints.write(tmp_path / "source")
    with pytest.raises(ValueError, match="the experts are split already"):
        convert(source, tmp_path / "m", "split")


def test_the_layout_shows_in_the_names_not_in_the_model_type(tmp_path):
    source = checkpoints.write(tmp_path / "source")
    edit_config(source, model_type="llada2_moe_veomni")  # says merged, is split
    convert(source, tmp_path / "m", "merged")
    edit_config(tmp_path / "m", model_type="llada2_moe")  # what the reference's converter writes
    convert(tmp_path / "m", tmp_path / "s", "split")
    assert json.loads((tmp_path / "s" / "config.json").read_text())["model_type"] == "llada2_moe"


def test_an_occupied_output_is_left_alone(tmp_path):
    source = checkpoints.write(tmp_path / "source")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "mine").touch()
    with pytest.raises(ValueError, match="already holds something"):
        convert(source, tmp_path / "m", "merged")
    (tmp_path / "n.partial").mkdir()
    (tmp_path / "n.partial" / "mine").touch()
    with pytest.raises(ValueError, match=r"holds mine, which no conversion has left"):
        convert(source, tmp_path / "n", "merged")
    assert os.listdir(tmp_path / "m") == os.listdir(tmp_path / "n.partial") == ["mine"]
    (tmp_path / "empty").mkdir()
    convert(source, tmp_path / "empty", "merged")
    assert "config.json" in os.listdir(tmp_path / "empty")


def test_two_conversions_do_not_write_the_same_place(tmp_path):
    source = checkpoints.write(tmp_path / "source")
    (tmp_path / "m.partial").mkdir()
    descriptor = os.open(tmp_path / "m.partial", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="another conversion is writing there"):
        convert(source, tmp_path / "m", "merged")
    os.close(descriptor)
    convert(source, tmp_path / "m", "merged")


def write_huge(directory, vocabulary):
    """A checkpoint whose embedding is a hole in a sparse file: terabytes that take no room."""
    config = checkpoints.CONFIG | {"vocab_size": vocabulary}
    small = checkpoints.random_tensors(checkpoints.CONFIG)
    small = {k: v for k, v in small.items() if k not in ("lm_head.weight", "model.word_embeddings.weight")}
    checkpoints.write(directory, config, small, num_shards=1)
    path = directory / "model.safetensors"
    data = path.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    end = max(v["data_offsets"][1] for v in header.values() if "shape" in v)
    for name in ("lm_head.weight", "model.word_embeddings.weight"):
        header[name] = {
            "dtype": "BF16",
            "shape": [vocabulary, 16],
            "data_offsets": [end, end + vocabulary * 32],
        }
        end += vocabulary * 32
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)


def test_a_disk_that_is_too_small_is_noticed_before_the_first_byte(tmp_path):
    write_huge(tmp_path / "source", 120 * 10**9)  # 7.7 TB
    with pytest.raises(ValueError, match=r"7,6\d\d,[0-9,]+ bytes are needed and [0-9,]+ are free"):
        convert(tmp_path / "source", tmp_path / "m", "merged")
    assert os.listdir(tmp_path) == ["source"]


PRELUDE = """
import os, resource, signal, sys
from anyorder_jax.progress import Progress
from conversion.__main__ import main
"""


def run_child(code, *arguments):
    """Runs a verb in a process of its own, after `code`."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + code + "\nsys.exit(main(sys.argv[1:]))", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, cwd=ROOT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    """A checkpoint and the run that `to_orbax` makes of it."""
    directory = tmp_path_factory.mktemp("held")
    checkpoints.write(directory / "source")
    assert main(["to_orbax", "--input_path", str(directory / "source"), "--output_path", str(directory / "run")]) == 0
    return directory


def arguments_of(verb, held, output):
    """A call of a verb that writes `output`."""
    if verb == "to_hf":
        return [verb, "--checkpoint", held / "run", "--output_path", output, "--layout", "split"]
    return [verb, "--input_path", held / "source", "--output_path", output]


VERBS = ("merge", "to_orbax", "to_hf")


@pytest.mark.parametrize(("verb", "limit"), [("merge", 20_000), ("to_orbax", 2000), ("to_hf", 20_000)])
def test_a_disk_that_fails_on_the_way_leaves_nothing(verb, limit, held, tmp_path):
    # no file may grow beyond the limit: a write in the middle fails as it does on a full disk
    code = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"
    done = run_child(code, *arguments_of(verb, held, tmp_path / "m"))
    assert done.returncode == 2, done.stderr
    assert f"error: {tmp_path / 'm'}: the disk is full (File too large). Nothing is left behind" in done.stderr
    assert os.listdir(tmp_path) == []


STOP_AFTER_SOME = """
import conversion.merge
conversion.merge.JOB_BYTES = 1024  # or this small checkpoint is one job
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts in the background
seen = []
def update(self, count, original=Progress.update):
    seen.append(count)
    if len(seen) == 20:
        os.kill(os.getpid(), signal.{signal})
    return original(self, count)
Progress.update = update
"""


@pytest.mark.parametrize("verb", VERBS)
def test_after_a_kill_the_next_call_starts_clean(verb, held, tmp_path):
    arguments = arguments_of(verb, held, tmp_path / "m")
    done = run_child(STOP_AFTER_SOME.format(signal="SIGKILL"), *arguments)
    assert done.returncode == -9, done.stderr
    assert os.listdir(tmp_path) == ["m.partial"]  # never at the final place
    (tmp_path / "m.partial" / "stray").write_text("left by the killed call")
    assert main(list(map(str, arguments))) == 0
    assert os.listdir(tmp_path) == ["m"]
    expected = {"merge": ["config.json", "model.safetensors"], "to_hf": ["config.json", "model.safetensors"],
                "to_orbax": ["checkpoints", "source"]}  # fmt: skip
    assert sorted(os.listdir(tmp_path / "m")) == expected[verb]
    if verb == "to_hf":
        found, given = checkpoints.read(tmp_path / "m"), checkpoints.read(held / "source")
        assert all(found[name].tobytes() == array.tobytes() for name, array in given.items())
    if verb == "to_orbax":
        files = [p.relative_to(held / "run") for p in (held / "run").rglob("*") if p.is_file()]
        differing = [p for p in files if (tmp_path / "m" / p).read_bytes() != (held / "run" / p).read_bytes()]
        assert not differing


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("verb", VERBS)
def test_an_interrupt_leaves_nothing(verb, name, held, tmp_path):
    done = run_child(STOP_AFTER_SOME.format(signal=name), *arguments_of(verb, held, tmp_path / "m"))
    assert done.returncode == {"SIGTERM": 143, "SIGINT": 130}[name]
    assert "Traceback" not in done.stderr and done.stderr.count("conversion: interrupted") == (name == "SIGINT")
    assert os.listdir(tmp_path) == []


def test_memory_does_not_grow_with_the_checkpoint(tmp_path):
    write_huge(tmp_path / "source", 4 * 10**6)  # 256 MB
    code = """
peak = []
def update(self, count, original=Progress.update):
    peak.append(int(open('/proc/self/status').read().split('RssAnon:')[1].split()[0]))
    return original(self, count)
Progress.update = update
import atexit
atexit.register(lambda: print(max(peak)))
"""
    done = run_child(code, "merge", "--input_path", tmp_path / "source", "--output_path", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 64 * 1024  # kB of anonymous memory
