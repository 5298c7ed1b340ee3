"""Hydra sweepers and launchers. Hydra discovers them only in this namespace; the rest is in afqmc/sweeps."""
