"""Benchmarks and the open-loop load generator. They measure and print, and assert no times."""
