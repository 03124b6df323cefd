#!/bin/sh
# Makes .venv as requirements.txt pins it, and nothing when it is so already. Usage: deploy/setup.sh PYTHON
set -eu
cd "$(dirname "$0")/.."
python=${1:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "crossfade needs Python 3.11 or newer; '$python' is not. Name one: make PYTHON=/path/to/python3.11 …" >&2
    exit 1
fi

stamp=.venv/.requirements
wanted=$(cat requirements.txt pyproject.toml | cksum)
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && [ -x .venv/bin/crossfade ]; then
    exit 0
fi

if [ ! -x .venv/bin/python ]; then
    echo "making the virtual environment .venv" >&2
    if ! "$python" -m venv .venv 2>/dev/null; then
        rm -rf .venv
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
            echo "installing python$version-venv" >&2
            apt-get update -qq >&2 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "python$version-venv" >&2
            "$python" -m venv .venv
        else
            echo "Python's venv module is missing: install the package python$version-venv, then try again." >&2
            exit 1
        fi
    fi
fi

echo "installing the packages that requirements.txt pins (the first time this takes a few minutes)" >&2
# An environment that another tool made may have no pip.
.venv/bin/python -m pip --version >/dev/null 2>&1 || .venv/bin/python -m ensurepip --upgrade >/dev/null
.venv/bin/python -m pip install --quiet --disable-pip-version-check "uv>=0.5" >&2
.venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes -r requirements.txt >&2
.venv/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable . >&2
echo "$wanted" > "$stamp"
