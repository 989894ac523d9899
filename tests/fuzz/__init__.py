"""Coverage-guided search for what readers of others' words should not accept."""
