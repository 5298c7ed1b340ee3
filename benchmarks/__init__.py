"""Benchmarks of speed: afqmc compared with common training loops, and all of them with the theoretical floor."""
