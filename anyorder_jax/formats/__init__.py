"""Formats: other people's logs -> trajectories. One file per format; `registry` knows them all."""
