"""Names: of the policies that play, and of what is measured of played episodes. Imports nothing."""

RULES = ("greedy", "sampled", "visit_penalty")
"""How the scores of a grid's action words become an action (`evaluation.policy`)."""

CHOICE_NAMES = ("guided", "checked", "planned", "doubtful", "valid")
"""Of `choosing.CHOICES`."""

UNTRAINED = ("random", "expert", "random_valid", "most_frequent", "repeat_last", "copy_request")
"""Policies without a model; the first two of grids, the others (and the expert) of text."""

TEXT_MEASURES = (
    "success", "return", "best_return", "steps", "cut_off", "invalid", "repeated", "repaired", "passes_per_action",
    "tokens_per_action",
)  # fmt: skip
"""Of `acting.evaluation.measures`."""

CALL_MEASURES = ("well_formed", "schema_accuracy", "repeated_calls", "calls_per_turn")
"""Of `acting.call_measures`, of worlds of calls."""

GRID_MEASURES = (
    "success", "return", "steps", "steps_when_successful", "steps_relative_to_expert", "success_weighted_path_length",
)  # fmt: skip
"""Of `evaluation.rollout.summarise`."""

PLAYED_MEASURES = tuple(dict.fromkeys((*GRID_MEASURES, *TEXT_MEASURES, *CALL_MEASURES)))
