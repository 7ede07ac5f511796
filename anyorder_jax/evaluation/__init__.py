"""Evaluation: what the model knows of the world, how it acts in it, and pictures of both."""
