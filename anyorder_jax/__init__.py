"""Any-order masked training of LLaDA2-MoE agents on trajectories."""
