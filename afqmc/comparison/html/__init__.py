"""The comparison as one HTML page that needs no network: what it shows as plain data, and the files that show it."""
