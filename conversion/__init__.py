"""LLaDA2.x checkpoints in and out: `python -m conversion --help`."""
