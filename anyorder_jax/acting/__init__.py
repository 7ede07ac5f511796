"""Acting: how a model writes what comes next, from what has been seen so far. Start at `generator`."""
