"""Dead letters: what became of them, and their replay, each once."""
