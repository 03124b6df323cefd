"""What travels between processes and what users write: events, CloudEvents headers, settings. Imports nothing of ours."""
