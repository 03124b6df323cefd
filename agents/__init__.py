"""Faust agents: plain async handlers that take a batch and the ports they need, and the one table that wires them."""
