"""General helpers: errors, config fields, files, locks, signals, console and redaction."""
