"""The rollout of collections: the phases as workers follow them, the conductor's journal, and the evidence for gates."""
