"""Coverage-guided search for requests that should not be accepted."""
