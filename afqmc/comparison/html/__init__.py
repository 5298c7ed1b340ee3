"""The comparison as a single HTML page that works offline: plain data from Python, drawn by the assets."""
