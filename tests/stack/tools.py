"""Shared by the tests of the stack. It contains no tests."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit


def mariadb_arguments(dsn: str) -> dict[str, Any]:
    """Return the arguments of `aiomysql.connect` for a mysql:// URL."""
    parts = urlsplit(dsn)
    return {
        "host": parts.hostname,
        "port": parts.port,
        "user": parts.username,
        "password": parts.password,
        "db": parts.path.lstrip("/"),
    }
