"""Film: one rollout as a GIF, the scene with its goal, the action taken, and how it ended."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from anyorder_jax.acting.episode import Episode
from anyorder_jax.environments.base import Environment
from anyorder_jax.evaluation import report
from anyorder_jax.evaluation.policy import seed_of
from anyorder_jax.types import Kind

SCENE = 320  # pixels across
CAPTION = 66
PAPER, PALE, INK, ACCENT = "#14171c", "#a9b0ba", "#e6e8eb", "#78b0f0"
"""The head is as dark as MiniGrid's scenes: on a light page it belongs to them, on a dark one it does not glare."""
FRAME_MILLISECONDS, LAST_MILLISECONDS = 450, 2500
FILM_OF = 20
MAX_FRAMES = 80  # of a long failure, the first so many steps; the caption says so


def choose(episodes: Sequence[Episode], expert_steps_E: np.ndarray) -> Episode:
    """Of the first FILM_OF episodes the one that takes the expert longest: worth watching, whatever the
    policy did."""
    return episodes[int(np.argmax(expert_steps_E[:FILM_OF]))]


def frames(environment: Environment, episode: Episode, title: str) -> list[Image.Image]:
    """Plays the recorded actions again and draws each step.

    Args:
      environment: of the episode's kind; an episode is a function of its seed, so it shows the same.
      episode: finished.
      title: e.g. the policy's name.
    """
    goal = next(unit.text or "" for unit in environment.reset(seed_of(episode)) if unit.kind == Kind.GOAL)
    actions = [unit.text or "" for unit in episode.units if unit.kind == Kind.ACTION]
    outcome = "solved" if episode.is_success else "failed"
    heading = f"{title}, seed {episode.task}"
    drawn = [_frame(environment, heading, goal, "start")]
    for number, word in enumerate(actions[:MAX_FRAMES], start=1):
        environment.step(word)
        is_last = number == len(actions)
        note = f"step {number}: {word}" + (f"  ({outcome})" if is_last else "")
        if number == MAX_FRAMES and not is_last:
            note += f"  ... ({outcome} after {len(actions)} steps)"
        drawn.append(_frame(environment, heading, goal, note))
    return drawn


def _frame(environment: Environment, heading: str, goal: str, note: str) -> Image.Image:
    scene = ImageOps.contain(Image.fromarray(environment.render()), (SCENE, SCENE), Image.Resampling.LANCZOS)
    image = Image.new("RGB", (SCENE, SCENE + CAPTION), PAPER)
    image.paste(scene, ((SCENE - scene.width) // 2, CAPTION + (SCENE - scene.height) // 2))
    draw = ImageDraw.Draw(image)
    small, large = ImageFont.load_default(12), ImageFont.load_default(15)
    draw.text((8, 4), heading, PALE, small)
    draw.text((8, 21), f"goal: {_shortened(draw, goal, large)}", INK, large)
    draw.text((8, 43), note, ACCENT, large)
    return image


def _shortened(draw: ImageDraw.ImageDraw, goal: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    room = SCENE - 16 - draw.textlength("goal: ", font)
    if draw.textlength(goal, font) <= room:
        return goal
    while goal and draw.textlength(goal + "...", font) > room:
        goal = goal[:-1]
    return goal.rstrip() + "..."


def save(images: list[Image.Image], path: Path) -> None:
    """Writes a GIF that loops; the last frame stays longer."""
    buffer = io.BytesIO()
    durations = [FRAME_MILLISECONDS] * (len(images) - 1) + [LAST_MILLISECONDS]
    images[0].save(
        buffer,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=durations,
        loop=0,
        optimize=True,
    )
    report.write_whole(path, buffer.getvalue())
