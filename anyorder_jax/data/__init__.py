"""Data: from recorded trajectories to batches (sources, units, tokenization, packing, pipeline)."""
