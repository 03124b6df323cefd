"""The rollout of collections: the phases that workers follow, the conductor's journal, the evidence for gates."""
