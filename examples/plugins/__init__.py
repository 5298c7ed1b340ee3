"""Examples of parts that a user plugs in."""
