"""The training loop and its parts. It knows no config schema, files, tracker or signals."""
