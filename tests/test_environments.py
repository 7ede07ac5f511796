"""Environments: the codec is exact, the bot is the bot, an episode is a function of its seed."""

import contextlib
import io
import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX, STATE_TO_IDX
from minigrid.core.world_object import WorldObj
from minigrid.utils.baby_ai_bot import BabyAIBot

from anyorder_jax.environments.base import ExpertError
from anyorder_jax.environments.play import play_episode
from anyorder_jax.environments.registry import environment_ids, make_codec, make_environment
from anyorder_jax.types import Field, Kind, Unit

LEVEL = "BabyAI-GoToObj-v0"
CODECS = {profile: make_codec(LEVEL, profile) for profile in ("joint", "attributes")}
EMPTY, WALL, RED_BALL = [1, 0, 0], [2, 5, 0], [6, 0, 0]


def legal_cells() -> set[tuple[int, int, int]]:
    """What minigrid's own decoder takes and gives back unchanged, beside nothing and the agent."""
    cells = {(OBJECT_TO_IDX["unseen"], 0, 0), (OBJECT_TO_IDX["empty"], 0, 0)}
    cells |= {(OBJECT_TO_IDX["agent"], 0, direction) for direction in range(4)}
    for name, index in OBJECT_TO_IDX.items():
        for color in COLOR_TO_IDX.values():
            for state in STATE_TO_IDX.values():
                if name not in ("unseen", "empty", "agent"):
                    cells.add(tuple(WorldObj.decode(index, color, state).encode()))
    return cells


LEGAL = sorted(legal_cells())


def observation(image: list, direction: int = 0) -> Unit:
    return Unit(Kind.OBSERVATION, 3, data={"image": image, "direction": direction})


def empty_image() -> list:
    return [[list(EMPTY) for _ in range(7)] for _ in range(7)]


def assert_round_trip(codec, unit: Unit) -> None:
    words = [slot.word for slot in codec.slots(unit)]
    assert codec.unit(unit.kind, unit.step, words) == unit


@pytest.mark.parametrize("profile", CODECS)
def test_every_legal_cell_has_its_own_words(profile):
    codec, seen = CODECS[profile], set()
    for cell in LEGAL:
        image = empty_image()
        image[0][0] = list(cell)
        slots = codec.slots(observation(image))
        assert_round_trip(codec, observation(image))
        seen.add(tuple(slot.word for slot in slots if slot.cell == 1))
    assert len(seen) == len(LEGAL) == 56  # the lexicon's 61 also name goals of other colors than green


@pytest.mark.parametrize("profile", CODECS)
@given(
    cells=st.lists(st.sampled_from(LEGAL), min_size=49, max_size=49),
    direction=st.integers(0, 3),
)
@settings(max_examples=50, deadline=None)
def test_random_observations_round_trip(profile, cells, direction):
    image = [[list(cells[x * 7 + y]) for y in range(7)] for x in range(7)]
    codec = CODECS[profile]
    unit = observation(image, direction)
    slots = codec.slots(unit)
    assert_round_trip(codec, unit)
    assert len(slots) == {"joint": 50, "attributes": 148}[profile]
    assert [slot.attribute for slot in slots] == list(range(len(slots)))
    assert all(slot.word in codec.lexicon()[slot.field] for slot in slots)


@pytest.mark.parametrize("profile", CODECS)
def test_cells_stand_in_reading_order(profile):
    image = empty_image()
    image[2][1] = RED_BALL  # x = 2, y = 1
    image[3][6] = WALL  # where the agent stands: the last row's middle
    slots = CODECS[profile].slots(observation(image, direction=3))
    assert slots[0] == ("north", Field.DIRECTION, 0, 0)
    words = {number: [s.word for s in slots if s.cell == number] for number in (10, 46, 1)}
    if profile == "joint":
        assert words == {10: ["red_ball"], 46: ["wall"], 1: ["empty"]}
    else:
        assert words[10] == ["ball", "red", "none"] and words[46] == ["wall", "none", "none"]
        assert [s.field for s in slots if s.cell == 10] == [Field.OBJECT, Field.COLOR, Field.STATE]


def test_lexicons_are_small_and_closed():
    sizes = {profile: {f.name: len(set(w)) for f, w in c.lexicon().items()} for profile, c in CODECS.items()}
    assert sizes["joint"] == {"TEXT": 33, "ACTION": 7, "DIRECTION": 4, "CELL": 61}
    assert sizes["attributes"] == {
        "TEXT": 33, "ACTION": 7, "DIRECTION": 4, "OBJECT": 11, "COLOR": 7, "STATE": 8,
    }  # fmt: skip
    cells = CODECS["joint"].lexicon()[Field.CELL]
    assert {"red_ball", "red_closed_door", "grey_locked_door", "empty", "wall", "unseen"} <= set(cells)


@pytest.mark.parametrize("profile", CODECS)
def test_what_minigrid_never_writes_is_refused(profile):
    codec = CODECS[profile]
    image = empty_image()
    image[4][2] = [6, 0, 1]  # an open ball
    with pytest.raises(ValueError, match=r"step 3, cell x=4 y=2.*\[6, 0, 1\]"):
        codec.slots(observation(image))
    with pytest.raises(ValueError, match="7 x 7"):
        codec.slots(observation(empty_image()[:6]))
    with pytest.raises(ValueError, match="direction: expected 0, 1, 2 or 3, got 4"):
        codec.slots(observation(empty_image(), direction=4))
    for broken, message in (
        ([*empty_image()[:6], empty_image()[6][:6]], "7 x 7 x 3 integers .* rows of different lengths"),
        (7, r"7 x 7 x 3 integers .* int64 of shape \(\)"),
        ([[0] * 7] * 7, r"7 x 7 x 3 integers .* int64 of shape \(7, 7\)"),
        ([[[[1], 0, 0]] * 7] * 7, "7 x 7 x 3 integers .* rows of different lengths"),
        ([[[256, 0, 0]] * 7] * 7, r"no cell \[256, 0, 0\]"),
        ([[[0.5, 0, 0]] * 7] * 7, r"no cell \[0.5, 0, 0\]"),
        ([[[1, 0]] * 7] * 7, r"no cell \[1, 0\]"),
    ):
        with pytest.raises(ValueError, match=message):
            codec.slots(observation(broken))
    for missing in ("image", "direction"):
        data = {name: value for name, value in observation(empty_image()).data.items() if name != missing}
        with pytest.raises(ValueError, match=f"expected data with a field '{missing}'"):
            codec.slots(Unit(Kind.OBSERVATION, 3, data=data))
    words = [slot.word for slot in codec.slots(observation(empty_image()))]
    with pytest.raises(ValueError, match="no cell has the words"):
        codec.unit(Kind.OBSERVATION, 0, [words[0], "forward", *words[2:]])
    with pytest.raises(ValueError, match=f"{len(words)} words, got {len(words) - 1}"):
        codec.unit(Kind.OBSERVATION, 0, words[:-1])
    with pytest.raises(ValueError, match="is no direction"):
        codec.unit(Kind.OBSERVATION, 0, ["up", *words[1:]])
    with pytest.raises(ValueError, match="action 'jump' is unknown"):
        codec.slots(Unit(Kind.ACTION, 0, text="jump"))
    with pytest.raises(ValueError, match="cannot be restored"):
        codec.slots(Unit(Kind.GOAL, 0, text="go  to the ball"))
    with pytest.raises(ValueError, match="no thought"):
        codec.slots(Unit(Kind.THOUGHT, 0, text="hm"))


def test_every_level_opens_and_every_word_of_its_mission_is_known():
    known = set(CODECS["joint"].lexicon()[Field.TEXT])
    levels = [i for i in environment_ids() if i.startswith("BabyAI-")]
    assert len(levels) >= 96
    for environment_id in levels:
        environment = make_environment(environment_id)
        goal, first = environment.reset(5)
        assert environment.max_steps > 0
        assert goal.kind == Kind.GOAL and first.kind == Kind.OBSERVATION and first.step == 0
        for codec in CODECS.values():
            assert_round_trip(codec, goal)
            assert_round_trip(codec, first)
        words = {slot.word for slot in CODECS["joint"].slots(goal)}
        assert words <= known, environment_id
        environment.close()


@pytest.mark.parametrize(
    "environment_id",
    [LEVEL, "BabyAI-BlockedUnlockPickup-v0", "BabyAI-PutNextS4N1-v0", "BabyAI-OpenTwoDoors-v0"],
)
def test_whole_episodes_round_trip_and_the_bot_advises_as_ever(environment_id):
    """Doors opened and unlocked, things carried: every unit is exact, the faster bot plays as minigrid's."""
    environment = make_environment(environment_id)
    level = gymnasium.make(environment_id, disable_env_checker=True).unwrapped
    carried = set()
    for seed in (1, 2):
        trajectory = play_episode(environment, seed)
        with contextlib.redirect_stdout(io.StringIO()):
            level.reset(seed=seed)
        bot = BabyAIBot(level)
        for unit in trajectory.units:
            for codec in CODECS.values():
                assert_round_trip(codec, unit)
            if unit.kind == Kind.ACTION:
                advice = bot.replan()
                assert advice.name == unit.text
                raw, reward, *_ = level.step(advice)
            elif unit.step > 0:
                assert unit.data == {"image": raw["image"].tolist(), "direction": raw["direction"]}
                carried.add(unit.data["image"][3][6][0])
        assert trajectory.outcome == {
            "success": True, "return": reward,
            "num_steps": sum(unit.kind == Kind.ACTION for unit in trajectory.units),
        }  # fmt: skip
    if environment_id not in (LEVEL, "BabyAI-OpenTwoDoors-v0"):
        assert carried > {OBJECT_TO_IDX["empty"]}  # something was seen in the agent's own cell


def test_an_episode_depends_on_its_seed_alone():
    environment = make_environment("BabyAI-MiniBossLevel-v0")
    first = play_episode(environment, 11)
    play_episode(environment, 12)
    assert play_episode(environment, 11) == first
    assert play_episode(make_environment("BabyAI-MiniBossLevel-v0"), 11) == first


def test_only_a_positive_reward_is_success():
    environment = make_environment("BabyAI-GoToObjS4-v0")
    environment.reset(0)
    for _ in range(environment.max_steps - 1):  # drop nothing until the time is up
        assert not environment.step("drop").is_done
    last = environment.step("drop")
    assert last.is_done and not last.is_success and last.reward == 0
    assert last.observation.step == environment.max_steps


def test_the_bot_cannot_loop_for_ever():
    environment = make_environment("BabyAI-UnlockToUnlock-v0")
    with pytest.raises(ExpertError, match="replans without end"):
        play_episode(environment, 4)


def test_the_bots_assertions_are_expert_errors():
    with pytest.raises(ExpertError, match="the bot fails: AssertionError"):
        play_episode(make_environment("BabyAI-KeyInBox-v0"), 0)


def test_an_episode_that_ends_badly_is_an_expert_error():
    environment = make_environment("BabyAI-OpenDoorsOrderN2Debug-v0")
    with pytest.raises(ExpertError, match="ended without success"):
        play_episode(environment, 1)


def test_reset_is_silent(capfd):
    level = gymnasium.make("BabyAI-GoToRedBall-v0", disable_env_checker=True)
    for seed in range(10):
        level.reset(seed=seed)
    assert "Sampling rejected" in capfd.readouterr().out  # what has to be silenced
    environment = make_environment("BabyAI-GoToRedBall-v0")
    for seed in range(10):
        environment.reset(seed)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("environment_id", [LEVEL, "BabyAI-PutNextLocalS5N3-v0"])
def test_wrong_actions_are_marked_and_the_bot_recovers(environment_id):
    """In PutNext a wrong move comes between the bot and what it picks up or drops: it must hear of it."""
    environment = make_environment(environment_id)
    num_wrong = num_actions = num_bumps = 0
    for seed in range(25):
        trajectory = play_episode(environment, seed, noise=0.2)
        assert trajectory == play_episode(environment, seed, noise=0.2)
        assert trajectory.outcome["success"]
        units = trajectory.units
        for i in range(2, len(units), 2):
            action, before, after = units[i], units[i - 1], units[i + 1]
            num_actions += 1
            if not action.is_expert:
                num_wrong += 1
                assert action.text in ("left", "right", "forward")
                num_bumps += action.text == "forward" and before.data == after.data
    assert 0.1 < num_wrong / num_actions < 0.3
    assert num_bumps > 0


def test_without_noise_every_action_is_the_experts():
    trajectory = play_episode(make_environment(LEVEL), 0)
    assert all(unit.is_expert for unit in trajectory.units)


def test_unknown_names_are_refused_with_their_neighbours():
    with pytest.raises(ValueError, match=r"'BabyAI-GotoObj-v0'. Did you mean BabyAI-GoToObj-v0,"):
        make_environment("BabyAI-GotoObj-v0")
    with pytest.raises(ValueError, match="Did you mean BabyAI-GoToRedBall-v0"):
        make_codec("BabyAI-GoToRedBal-v0", "joint")
    with pytest.raises(ValueError, match="Did you mean"):
        make_environment("GoToRedBall")
    with pytest.raises(ValueError, match="Ids begin with BabyAI-"):
        make_environment("?")
    with pytest.raises(ValueError, match="profile 'cells' is unknown"):
        make_environment(LEVEL, "cells")
    environment = make_environment(LEVEL)
    environment.reset(0)
    with pytest.raises(ValueError, match="action 'jump' is unknown; expected one of left, right, forward"):
        environment.step("jump")


def test_render_shows_the_level():
    environment = make_environment(LEVEL)
    environment.reset(0)
    picture = environment.render()
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.std() > 0


def test_collecting_processes_import_no_jax():
    code = (
        "import sys, anyorder_jax.collect; from anyorder_jax.environments import registry; "
        "registry.make_environment('BabyAI-GoToObj-v0'); sys.exit(2 * ('jax' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
