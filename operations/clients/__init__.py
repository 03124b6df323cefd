"""Clients of the topics, as a producer or an application would write them."""
