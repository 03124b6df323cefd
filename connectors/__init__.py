"""Ports (small Protocols) and their adapters: the only room that talks to stores, models and the bus."""
