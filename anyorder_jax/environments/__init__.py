"""Environments: where trajectories come from and where a policy acts. Start at `registry`; one file each."""
