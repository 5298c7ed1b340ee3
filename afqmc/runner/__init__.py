"""One run end to end: setup, validation, training, recording and its lifecycle."""
