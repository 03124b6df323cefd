"""How the JVMs of the stack are tuned and where they log. Which class is started is not decided here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stack.java import JavaHome
from stack.layout import write_private

# The largest record, plus room for its key, headers and batch frame. All vectors of a long document are in one record.
RECORD_BYTES = 16 * 1024 * 1024
RECORD_FRAME_BYTES = 64 * 1024
MESSAGE_MAX_BYTES = RECORD_BYTES + RECORD_FRAME_BYTES

_LOGGING = """\
status = error
appenders = out
appender.out.type = Console
appender.out.name = OUT
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRefs = out
rootLogger.appenderRef.out.ref = OUT
"""


def java_command(
    java: JavaHome, main_class: str, arguments: Sequence[str], configuration: Path, heap_mib: int
) -> list[str]:
    """Return the command line of a long-running JVM with a small heap, and write its logging configuration."""
    logging = configuration / "log4j2.properties"
    write_private(logging, _LOGGING)
    return [
        str(java.java),
        f"-Xmx{heap_mib}m",
        "-Xms64m",
        "-XX:+UseSerialGC",
        # Only the quick compiler: on two cores a start takes half the CPU time, and the broker moves as many records a
        # second (1 kB each: 115,000 in, 400,000 out) with no more CPU time than with the optimising compiler.
        "-XX:TieredStopAtLevel=1",
        "-XX:+ExitOnOutOfMemoryError",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={logging}",
        "-cp",
        java.class_path,
        main_class,
        *arguments,
    ]


def properties(values: dict[str, object]) -> str:
    """Return the text of a Java properties file; backslashes and line ends are escaped."""
    lines = []
    for key, value in values.items():
        text = str(value).lower() if isinstance(value, bool) else str(value)
        escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
        lines.append(f"{key}={escaped}\n")
    return "".join(lines)
