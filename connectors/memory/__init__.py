"""In-memory adapters of the ports. They are shipped, and fulfil the same contract as the real ones."""
