"""The built-in callbacks of a run: what is written, shown and saved as it trains."""
