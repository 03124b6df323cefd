"""The commands of `crossfade`, one module per noun."""
