"""A wrong database address is refused. The error has no part of the address, and in particular no password."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from connectors.errors import CrossfadeError, Misconfigured
from connectors.sql.mariadb.pool import Pool as MariadbPool
from connectors.sql.mariadb.pool import arguments
from connectors.sql.postgres.pool import Pool as PostgresPool

CANARIES = ("Kanarie", "vogelvrij")
SIGNS = ["@", "/", ":", "#", "?", "%", "%25", "%zz", '"', "'", "\\", " ", "ü", "[", "]", "@/", "/@", ":/", "?@", "#@"]
PASSWORDS = [f"{CANARIES[0]}{sign}{CANARIES[1]}" for sign in (*SIGNS, "\n")]


async def reported(scheme: str, dsn: str) -> str:
    try:
        if scheme == "mysql":
            async with MariadbPool(dsn).session():
                pass
        else:
            await (await PostgresPool.open(dsn)).close()
    except CrossfadeError as error:
        causes = [error, error.__cause__, None if error.__suppress_context__ else error.__context__]
        return " ".join(str(one) for one in causes if one is not None)
    return ""


@pytest.mark.parametrize("scheme", ["mysql", "postgresql"])
@pytest.mark.parametrize("password", PASSWORDS)
async def test_no_error_of_an_address_has_a_part_of_its_password(
    scheme: str, password: str, unused_tcp_port: int
) -> None:
    for given in (password, quote(password, safe="")):
        message = await reported(scheme, f"{scheme}://user:{given}@127.0.0.1:{unused_tcp_port}/shop")
        assert message
        for canary in CANARIES:
            assert canary not in message


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_that_is_percent_encoded_is_the_one_that_was_meant(password: str) -> None:
    assert arguments(f"mysql://user:{quote(password, safe='')}@db.example:3307/shop")["password"] == password


@pytest.mark.parametrize("dsn", ["", "postgresql://", "mysql://u:p@h:port/d", "mysql://u:p@ss@h/d", "oracle://h/d"])
def test_what_is_no_address_is_refused_with_the_form_of_one(dsn: str) -> None:
    with pytest.raises(Misconfigured, match="mysql://user:password@host:port/database is expected"):
        arguments(dsn)
