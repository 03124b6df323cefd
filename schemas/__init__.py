"""What travels and what users write: events, CloudEvents headers, settings. Imports nothing of ours."""
