"""Parses the address of a legacy database. Its error messages contain no part of an address."""

from __future__ import annotations

from urllib.parse import SplitResult, urlsplit

from connectors.errors import Misconfigured


def parsed(dsn: str, schemes: tuple[str, ...], database: str) -> SplitResult:
    """Return the parts of `scheme://user:password@host:port/database`. Raises Misconfigured.

    A password in which `@`, `/`, `#` or `?` is not percent-encoded would be read as a host, a port or a database. The
    error about a host, port or database that does not exist would then show it.
    """
    wrong = Misconfigured(
        f"not a {database} address: {schemes[0]}://user:password@host:port/database is expected; in user and password "
        "percent-encode what is neither a letter nor a digit (@ is %40, / is %2F, : is %3A, # is %23, % is %25)"
    )
    try:
        parts = urlsplit(dsn)
        _ = parts.port
    except ValueError:
        raise wrong from None
    user, _, host = parts.netloc.rpartition("@")
    odd = "@" in user or parts.fragment or dsn.endswith("#") or "@" in parts.path + parts.query
    if parts.scheme not in schemes or odd or "/" in parts.path.lstrip("/") or not (host or parts.query):
        raise wrong
    return parts
