"""Training callbacks: methods that watch or change the training loop."""
