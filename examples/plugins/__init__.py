"""Examples of custom parts that a user plugs in."""
