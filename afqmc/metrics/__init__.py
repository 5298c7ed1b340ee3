"""What probabilities are worth against labels."""
