"""What tests of the stack share. No tests live here."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit


def mariadb_arguments(dsn: str) -> dict[str, Any]:
    """Give the arguments of `aiomysql.connect` for a mysql:// URL."""
    parts = urlsplit(dsn)
    return {
        "host": parts.hostname,
        "port": parts.port,
        "user": parts.username,
        "password": parts.password,
        "db": parts.path.lstrip("/"),
    }
