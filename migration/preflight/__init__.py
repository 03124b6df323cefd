"""Checks of what must hold before anything starts, each with its remedy."""
