"""Watching and steering the move of collections: what is known of it, how it is shown, pause and resume."""
