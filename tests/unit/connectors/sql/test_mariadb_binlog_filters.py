"""Which databases a binary log omits, as the server reports its filters. They can be set only when it starts."""

from __future__ import annotations

import pytest

from connectors.sql.mariadb.checks import leaves_out


@pytest.mark.parametrize(
    ("only", "never", "variable"),
    [
        ("", "", None),
        ("shop", "", None),
        ("other,shop", "", None),
        ("other", "", "binlog_do_db"),
        ("shops", "", "binlog_do_db"),
        ("", "other", None),
        ("", "other,shop", "binlog_ignore_db"),
        ("shop", "shop", "binlog_ignore_db"),
        (None, None, None),
    ],
)
def test_a_database_is_left_out_where_others_alone_are_named_or_it_is_ignored(
    only: str | None, never: str | None, variable: str | None
) -> None:
    status = [{"File": "bin.000001", "Position": 4, "Binlog_Do_DB": only, "Binlog_Ignore_DB": never}]
    assert leaves_out(status, "shop") == variable
    assert leaves_out([], "shop") is None
