"""Two machines and a cable: what happens when any of them fails."""
