"""Fixtures of the whole suite. The local stack is started once, by the first test that needs it."""

pytest_plugins = ["tests.stack_fixture"]
