"""What must hold before anything starts: checks, each with its remedy."""
