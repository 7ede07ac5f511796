"""What is wrong with a checkpoint: numbers of its weights, its loss on a known text, and which repair lowers it."""
