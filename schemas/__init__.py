"""Events, keys, task states, settings: what travels, is stored, is configured. Imports no other crossfade package."""
