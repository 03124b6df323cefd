"""The `crossfade` command and what it operates: the local stack, connectors, migrations."""
