"""`python -m anyorder_jax.data.show` prints units, tokens and a drawn mask of a recorded episode."""

import sys

import pytest

from anyorder_jax.data import show, sources
from anyorder_jax.environments import registry
from anyorder_jax.environments.play import play_episode

LEVEL = "BabyAI-GoToObj-v0"


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    """One expert episode in a file."""
    environment = registry.make_environment(LEVEL)
    path = tmp_path_factory.mktemp("episodes") / "shard.jsonl"
    path.write_bytes(sources.encode(play_episode(environment, seed=3)))
    return path


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["show", *map(str, arguments)])
    show.main()
    return capsys.readouterr().out


@pytest.mark.parametrize("profile", ["joint", "attributes"])
def test_prints_every_unit_and_what_is_hidden(monkeypatch, capsys, shard, profile):
    printed = run(monkeypatch, capsys, shard, "--profile", profile, "--order", "inverse")
    assert f"trajectory {LEVEL}/3" in printed and "order inverse" in printed
    tokens = 50 if profile == "joint" else 148
    assert printed.count(f"({tokens} tokens)") == printed.count("\naction") + 1
    assert "\n  go to a" in printed or "\n  go to the" in printed
    assert "?forward" in printed or "?left" in printed or "?right" in printed
    assert max(map(len, printed.splitlines()[3:])) <= show.WIDTH


def test_window(monkeypatch, capsys, shard):
    assert run(monkeypatch, capsys, shard, "--window", 2).count("\nobservation") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--record", 5], "expected a record 5"),
        (["--rate", 2], "masking.rate: expected a probability"),
        (["--order", "casual"], "Did you mean.*causal"),
        (["--tokenizer", "nowhere"], "nowhere is not a directory"),
        (["--granularity", "attribute", "--profile", "other"], "profile 'other' is unknown"),
    ],
)
def test_bad_input_is_one_sentence(monkeypatch, capsys, shard, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, capsys, shard, *arguments)


def test_missing_and_broken_files_are_one_sentence(monkeypatch, capsys, shard, tmp_path):
    with pytest.raises(SystemExit, match="No such file"):
        run(monkeypatch, capsys, tmp_path / "nothing.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(SystemExit, match=r"broken\.jsonl:1: broken JSON"):
        run(monkeypatch, capsys, broken)
