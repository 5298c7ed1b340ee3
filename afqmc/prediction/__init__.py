"""What ``afqmc.predict`` reads and writes: pairs with the user's own columns in, a file in a chosen format out."""
