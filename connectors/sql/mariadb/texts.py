"""The codec of a connection: UTF-8 that reads what Java reads, and so what capture carries.

MariaDB keeps halves of surrogate pairs (CESU-8) in `utf8mb4`. Each is U+FFFD here, so that one such text keeps no other
row from being read, and hashes agree with those of capture.
"""

from __future__ import annotations

import codecs
import re
from typing import Any

ENCODING = "crossfade_mariadb"
_REPLACEMENT = "\ufffd"
_HALF = re.compile("[\ud800-\udfff]")


def decoded(data: Any, errors: str = "strict") -> tuple[str, int]:
    """Return the text of a buffer of bytes, and how many those were; no bytes are refused, whatever `errors` says."""
    try:
        return codecs.utf_8_decode(data, "strict", True)
    except UnicodeDecodeError:
        pass
    try:
        text, _ = codecs.utf_8_decode(data, "surrogatepass", True)
    except UnicodeDecodeError:
        text, _ = codecs.utf_8_decode(data, "replace", True)
    return _HALF.sub(_REPLACEMENT, text), memoryview(data).nbytes


def _codec(name: str) -> codecs.CodecInfo | None:
    return codecs.CodecInfo(codecs.utf_8_encode, decoded, name=ENCODING) if name == ENCODING else None


codecs.register(_codec)
