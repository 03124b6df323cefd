"""The rollout of a collection: its phases, what opens them, and what a command comes to. Pure, like all of `domain`."""
