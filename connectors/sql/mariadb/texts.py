"""The codec of a connection: UTF-8 that decodes bytes as Java does, and therefore as capture delivers them.

MariaDB stores halves of surrogate pairs (CESU-8) in `utf8mb4`. The codec decodes each as U+FFFD. So one such text does
not keep other rows from being read, and hashes agree with the hashes of capture.
"""

from __future__ import annotations

import codecs
import re
from typing import Any

ENCODING = "crossfade_mariadb"
_REPLACEMENT = "\ufffd"
_HALF = re.compile("[\ud800-\udfff]")


def decoded(data: Any, errors: str = "strict") -> tuple[str, int]:
    """Return the text of a buffer of bytes, and the number of bytes. Any bytes are accepted, whatever `errors` is."""
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
