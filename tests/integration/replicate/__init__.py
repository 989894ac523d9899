"""Two servers: the second one fetches what the first one has."""
