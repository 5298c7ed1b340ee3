"""Sentence pairs: where they come from, how their files are read, what they hold."""
