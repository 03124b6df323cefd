"""The `crossfade` command: its commands, settings, worker process, clients, demonstration and output.

What it operates (the local stack, connectors, migrations) is in packages of its own.
"""
