"""In-memory adapters of the ports: shipped, and held to the same contract as the real ones."""
