"""How a question is answered: which backend is asked, for how long, and which is next if it fails."""
