"""Dead letters: what became of them, and their replay. Each letter is replayed once."""
