"""How a question is answered: which backend is asked, for how long, and what is asked next where it fails."""
