"""Logs on disk become shards: whatever the file, whatever kills it, no task in two splits, nothing lost or doubled."""

import gzip
import json
import os
import pty
import shlex
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import logs
from anyorder_jax.data import sources
from anyorder_jax.ingest import ingest, main
from anyorder_jax.ingestion import files, stream
from anyorder_jax.ingestion.splits import assign
from terminal import read_all


def write(path, records, is_lines=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(map(json.dumps, records)) + "\n" if is_lines else json.dumps(records, indent=1)
    path.write_text(text, encoding="utf-8")
    return path


def shops(num, num_tasks=10**9):
    """Episodes, all different, of so many tasks."""
    records = [logs.shop(f"Task {i % num_tasks}: price, please.", id=f"shop-{i}") for i in range(num)]
    for i, record in enumerate(records):
        record["messages"][-1]["content"] += f" ({i})"
    return records


def episodes(directory):
    """By split, the trajectories."""
    manifest = sources.read_manifest(directory)
    return {split: sources.read_trajectories(directory, split) for split in manifest.splits}


def all_episodes(directory):
    return [t for split in episodes(directory).values() for t in split]


def contents(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in sorted(directory.rglob("*")) if p.is_file()}


def run(*arguments, prelude="", **more):
    """The command in a process of its own; `prelude` is Python that comes before."""
    code = f"{prelude}\nfrom anyorder_jax.ingest import main\nmain()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False, **more)


def test_a_folder_of_every_format(tmp_path, capsys):
    folder = tmp_path / "logs"
    write(folder / "shop.jsonl", [*shops(20, num_tasks=12), shops(1)[0]])
    write(folder / "deep" / "maze.json", [logs.maze(i) for i in range(6)], is_lines=False)
    write(folder / "atif.json", logs.atif(), is_lines=False)
    write(folder / "shell.traj", logs.shell(), is_lines=False)
    write(folder / "bench.jsonl", [*logs.toolbench(3), logs.answer_tree(), logs.adp(), logs.functions()])
    (folder / "README.md").write_text("no log")
    output = tmp_path / "out"
    main([f"--input={folder}", f"--output_dir={output}", "--validation=0.2", "--test=0.2"])
    by_split = episodes(output)
    assert sum(map(len, by_split.values())) == 20 + 6 + 1 + 1 + 1 + 1 + 1 + 1
    tasks = [{t.source["task"] for t in split} for split in by_split.values()]
    assert all(tasks) and not tasks[0] & tasks[1] and not tasks[0] & tasks[2] and not tasks[1] & tasks[2]
    counts = sources.read_manifest(output).settings["counts"]
    assert counts["duplicates"] == 1 and counts["joined_records"] == 2 and counts["refused"] == 0
    assert sum(counts[split]["tasks"] for split in by_split) == len(set.union(*tasks)) == 12 + 6 + 6
    in_files = [unit for t in all_episodes(output) for unit in t.units]
    characters = sum(sum(counts[split]["characters"].values()) for split in by_split)
    assert characters == sum(len(unit.text) for unit in in_files)
    printed = capsys.readouterr()
    for line in (
        "21 records read as messages", "3 records read as toolbench", " 1 episodes dropped", " 2 records joined",
        " 1 observations that were cut off", " 13 turns of the agent that are no targets",
    ):  # fmt: skip
        assert line in printed.out
    assert f"--config=configs/own_data.py --config.data.path={output}" in printed.out
    assert "ingest: reading: " in printed.err
    assert not (output / "refused.jsonl").exists() and not (output / ".ingest").exists()


def test_every_kind_of_file_gives_the_same_episodes(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PIECE_BYTES", 3000)  # several pieces a file, also inside one array
    records = [{**record, "note": "é" * i} for i, record in enumerate(shops(30))]
    lines = write(tmp_path / "a.jsonl", records).read_bytes()
    write(tmp_path / "b.json", records, is_lines=False)
    (tmp_path / "c.json").write_bytes(b"\xef\xbb\xbf" + lines.replace(b"\n", b"\r\n\r\n"))
    (tmp_path / "d.json").write_text("\n".join(json.dumps(record, indent=2) for record in records))
    (tmp_path / "e.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "f.json.zst").write_bytes(zstandard.compress((tmp_path / "b.json").read_bytes()))
    write(tmp_path / "g.json.zst", {"version": 1, "episodes": records}, is_lines=False)  # wrapped, and its name lies
    for path in sorted(tmp_path.glob("*.*")):
        pieces = files.scan(path, lambda _: None).pieces
        assert (len(pieces) > 3) == (path.suffix not in (".gz", ".zst"))
        found = [(number, record) for piece in pieces for number, record, _ in files.records(piece)]
        assert [record for _, record in found] == records
        step = 2 if path.name == "c.json" else 1
        assert [number for number, _ in found] == list(range(1, 30 * step + 1, step))
    ingest([str(tmp_path)], tmp_path / "out", num_workers=2)
    assert len(all_episodes(tmp_path / "out")) == 30  # the others are doubles
    assert sources.read_manifest(tmp_path / "out").settings["counts"]["duplicates"] == 6 * 30


def test_parquet(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(files, "PIECE_BYTES", 1000)
    records = [{**record, "tools": json.dumps(record["tools"])} for record in shops(25)]
    records[3]["messages"] = records[3]["messages"][:2] + records[3]["messages"][-1:]
    for record in records:  # parquet has one type a column
        for message in record["messages"]:
            message["content"] = message["content"] or ""
    parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "a.parquet", row_group_size=4)
    pieces = files.scan(tmp_path / "a.parquet", lambda _: None).pieces
    assert len(pieces) > 2
    found = [(number, record) for piece in pieces for number, record, _ in files.records(piece)]
    assert [number for number, _ in found] == list(range(1, 26))
    for (_, row), record in zip(found, records, strict=True):
        assert logs.units(logs.read(row)) == logs.units(logs.read(record))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 broken")
    with pytest.raises(ValueError, match=r"b.parquet: broken parquet"):
        files.scan(tmp_path / "b.parquet", lambda _: None)


def test_killed_and_repeated_without_a_lost_or_doubled_episode(tmp_path):
    """kill -9 after some parts, and while shards are written; workers that outlive it do no harm."""
    log = write(tmp_path / "log.jsonl", [*shops(1500), *logs.toolbench(4), *shops(5)])
    arguments = [f"--input={log}", "--num_workers=2"]
    small = "from anyorder_jax.ingestion import files, merge\nfiles.PIECE_BYTES = 60000\nmerge.SHARD_BYTES = 20000"
    killed = tmp_path / "killed"
    code = f"{small}\nfrom anyorder_jax.ingest import main\nmain()"
    command = [sys.executable, "-c", code, *arguments, f"--output_dir={killed}"]
    for pattern, count in ((".ingest/part-*.json", 2), (".ingest/part-*.json", 12), ("train/*.jsonl", 9)):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list(killed.glob(pattern))) < count:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with pytest.raises(ValueError, match="interrupted"):
            sources.read_trajectories(killed, "train")
    assert run(*arguments, f"--output_dir={killed}", prelude=small).returncode == 0
    whole = run(*arguments[:1], f"--output_dir={tmp_path / 'whole'}", "--num_workers=1", prelude=small)
    assert whole.returncode == 0, whole.stderr
    assert contents(killed) == contents(tmp_path / "whole")
    assert len({t.id for t in all_episodes(killed)}) == len(all_episodes(killed)) == 1501


def test_a_finished_ingestion_is_left_alone_and_another_refused(tmp_path, capsys):
    log = write(tmp_path / "log.jsonl", shops(4))
    output = tmp_path / "out"
    ingest([str(log)], output)
    before = contents(output)
    ingest([str(log)], output)
    assert "holds these logs already, whole; nothing to do" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"holds something else \(test is 0.1, asked 0.3\)"):
        ingest([str(log)], output, test=0.3)
    write(log, shops(5))
    with pytest.raises(ValueError, match="the files, or what is in them, differ"):
        ingest([str(log)], output)
    assert contents(output) == before
    write(log, shops(4))
    shard = output / "train" / "shard-00000.jsonl"
    shard.write_bytes(shard.read_bytes()[:-5])
    ingest([str(log)], output)  # a damaged shard is written again
    assert contents(output) == before
    (tmp_path / "strays" / "train").mkdir(parents=True)
    (tmp_path / "strays" / "train" / "shard-00000.jsonl").write_text("precious")
    with pytest.raises(ValueError, match="no manifest says what it is"):
        ingest([str(log)], tmp_path / "strays")
    assert (tmp_path / "strays" / "train" / "shard-00000.jsonl").read_text() == "precious"


def test_bad_records_stop_or_are_listed(tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    bad = ['{"messages": [', '{"prompt": "x"}', json.dumps({"messages": [{"role": "user", "content": "x"}]})]
    log.write_bytes("\n".join([*map(json.dumps, shops(3)), *bad, ""]).encode() + b'{"id": "\xff"}\n')
    output = tmp_path / "out"
    with pytest.raises(ValueError, match=r"log.jsonl:4: broken JSON .*--on_bad_record=skip"):
        ingest([str(log)], output)
    assert not (output / "manifest.json").exists()  # nothing is in the way of another try
    main([f"--input={log}", f"--output_dir={output}", "--on_bad_record=skip"])
    told = [json.loads(line) for line in (output / "refused.jsonl").read_text().splitlines()]
    assert [(t["file"], t["line"]) for t in told] == [(str(log), line) for line in (4, 5, 6, 7)]
    reasons = ("broken JSON", "not recognised: an object with 'prompt'", "the agent has no turn", "no UTF-8")
    assert all(reason in t["reason"] for reason, t in zip(reasons, told, strict=True))
    printed = capsys.readouterr()
    assert "4 records refused" in printed.out and f"refused: {log}:4: broken JSON" in printed.err
    assert len(all_episodes(output)) == 3
    log.write_text(bad[1])
    with pytest.raises(ValueError, match="no episode is left"):
        ingest([str(log)], tmp_path / "none", on_bad_record="skip")


@pytest.mark.parametrize(
    ("change", "num_read", "reason"),
    [
        (lambda text: text[:-40], 29, "broken JSON"),
        (lambda text: text.rstrip()[:-1], 30, "the array does not end: the file is cut off"),
        (lambda text: text + "[]", 30, "text behind the end of the array"),
        (lambda text: text.replace('"shop-12"', '"shop-12" oops'), 12, "broken JSON (Expecting ',' delimiter)"),
        (lambda text: text.replace('"shop-12"', '"shop-12\n"'), 12, "broken JSON (Invalid control character"),
    ],
)
def test_a_broken_document_is_read_up_to_where_it_breaks(tmp_path, monkeypatch, change, num_read, reason):
    monkeypatch.setattr(files, "PIECE_BYTES", 4000)
    path = write(tmp_path / "a.json", shops(30), is_lines=False)
    path.write_text(change(path.read_text()))
    found = [triple for piece in files.scan(path, lambda _: None).pieces for triple in files.records(piece)]
    assert [reason == "" for *_, reason in found] == [True] * num_read + [False]
    number, record, told = found[-1]
    assert number == num_read + 1 and record is None and reason in told and "the rest of the file is not read" in told


def test_a_broken_archive_is_told(tmp_path):
    data = gzip.compress(write(tmp_path / "a.jsonl", shops(400)).read_bytes())
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    (piece,) = files.scan(tmp_path / "a.jsonl.gz", lambda _: None).pieces
    *_, (_, record, reason) = files.records(piece)
    assert record is None and "broken compression" in reason


def test_same_ids_with_other_content_stay_apart(tmp_path):
    records = [logs.shop(f"Task {i}", id="same") for i in range(3)]
    ingest([str(write(tmp_path / "log.jsonl", records))], tmp_path / "out", validation=0, test=0)
    ids = [t.id for t in all_episodes(tmp_path / "out")]
    assert len(set(ids)) == 3 and ids[0] == "same" and all(i.startswith("same#") for i in ids[1:])
    assert list(sources.read_manifest(tmp_path / "out").splits) == ["train"]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40), st.floats(0, 0.45), st.floats(0, 0.45),
    st.lists(st.integers(0, 2**64 - 1), max_size=20),
)  # fmt: skip
def test_splits_by_task(tasks, validation, test, more):
    tasks_N = np.array(tasks + tasks[:3], np.uint64)
    split_N = assign(tasks_N, validation, test)
    by_task = dict(zip(tasks_N.tolist(), split_N.tolist(), strict=True))
    assert [by_task[task] for task in tasks_N.tolist()] == split_N.tolist()  # one split a task
    num = len(by_task)
    assert 0 in split_N
    assert num < 2 or validation == 0 or 1 in split_N
    assert num < 3 or test == 0 or 2 in split_N
    assert (validation > 0 or 1 not in split_N) and (test > 0 or 2 not in split_N)
    grown = dict(zip(tasks + more, assign(np.array(tasks + more, np.uint64), validation, test).tolist(), strict=True))
    moved = [task for task in by_task if grown[task] != by_task[task]]
    assert len(moved) <= 3  # only those that filled an empty split


@settings(deadline=None)
@given(
    st.lists(st.recursive(st.one_of(st.integers(), st.text(), st.booleans()), st.lists, max_leaves=5).map(
        lambda value: {"é": value}), max_size=8),
    st.integers(1, 9), st.sampled_from([None, 1]), st.booleans(), st.booleans(),
)  # fmt: skip
def test_documents_are_read_in_any_pieces(records, block, indent, is_array, is_ascii):
    texts = [json.dumps(record, indent=indent, ensure_ascii=is_ascii) for record in records]
    text = "[" + " ,\n".join(texts) + "] \n" if is_array else "\n".join(texts)
    position = 0

    def read():
        nonlocal position
        position += block
        return text[position - block : position]

    found = list(stream.elements(read, is_start=True, has_end=True))
    assert [value for value, *_ in found] == records
    if found:
        end = text.encode()[: sum(num_bytes for _, num_bytes, _ in found)].decode()
        assert end.endswith(texts[-1])


def test_the_command_line_says_errors_in_one_sentence(tmp_path, capsys):
    log = write(tmp_path / "a, b.jsonl", shops(1))
    for arguments, message in (
        ([f"--input={tmp_path / 'no.jsonl'}"], r"^error: ingest: .*no.jsonl: no such file or folder"),
        ([f"--input={log}", "--format=chat"], r"^error: ingest: format: expected auto or one of adp, atif"),
        ([f"--input={log}", "--validation=0.6", "--test=0.5"], r"validation \+ test: expected less than 1"),
        ([f"--input={log}", "--on_bad_record=drop"], "on_bad_record: expected 'stop' or 'skip', got 'drop'"),
        ([f"--input={tmp_path / 'empty'}"], "no file there ends in .jsonl"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(SystemExit, match=message):
            main([*arguments, f"--output_dir={tmp_path / 'out'}"])
        assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main([f"--input={log}"])
    assert "required: --output_dir" in capsys.readouterr().err
    main([f"--input={log}", f"--output_dir={tmp_path / 'my out'}"])
    printed = capsys.readouterr().out
    assert (
        shlex.quote(f"--config.data.path={tmp_path / 'my out'}") in printed and "give the records a task_id" in printed
    )


def test_a_terminal_gets_a_bar_and_a_full_disk_one_sentence(tmp_path):
    log = write(tmp_path / "log.jsonl", shops(300))
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "anyorder_jax.ingest", f"--input={log}"]
    with open(inner, "w") as terminal:
        subprocess.run(
            [*command, f"--output_dir={tmp_path / 'a'}"], stderr=terminal, stdout=subprocess.DEVNULL, check=True
        )
    assert "ingest: reading: 100%" in read_all(outer)
    text = " ".join([*command, f"--output_dir={tmp_path / 'b'}"])
    done = subprocess.run(["bash", "-c", f"ulimit -f 100; exec {text}"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith("error: "), done.stderr
    assert "File too large" in done.stderr and "Traceback" not in done.stderr
    assert not list((tmp_path / "b").glob("*/*.jsonl"))
