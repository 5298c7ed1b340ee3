"""Runs side by side: read from anybody's directories, folded over seeds, ranked, and told apart or not."""
