"""What is kept of a training: weights that transformers loads, and all that it takes to go on, bit for bit."""
