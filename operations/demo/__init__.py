"""The demonstration: the whole path on this machine, with text that every machine has."""
