"""The parts of the main job: run (the nouns), loop (the verbs), monitor, resuming, shape. Not `train`, its door."""
