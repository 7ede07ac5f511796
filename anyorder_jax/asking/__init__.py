"""Asking: what a model knows of held-out text, of any world or none. Start at `run`."""
