"""The commands of `crossfade`, one module a noun."""
