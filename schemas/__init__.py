"""Events, CloudEvents headers and settings: what travels and what users write. Imports no other crossfade package."""
