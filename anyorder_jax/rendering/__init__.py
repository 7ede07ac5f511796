"""Rendering: how a unit is written as text, and which parts of that text can be hidden as a whole. Start at `text`."""
