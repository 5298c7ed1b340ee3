"""How Hydra sweeps here. Sweepers and launchers must lie in this namespace; what they share is below afqmc/sweep."""
