"""Ports (small Protocols) and their adapters: the only package that talks to stores, models and the bus."""
