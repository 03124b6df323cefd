"""Benchmarks and the open-loop load generator. They measure and print; nothing here asserts a time."""
