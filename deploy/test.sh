#!/bin/sh
# Runs all tests in two processes side by side: those that need the local stack, which mostly wait, and the others,
# which mostly compute. What the others print comes last. Usage: deploy/test.sh PYTHON
set -u
cd "$(dirname "$0")/.."
python=$1
said=$(mktemp)
other=
trap 'if [ -n "$other" ]; then kill "$other" 2>/dev/null; fi; rm -f "$said"' EXIT
trap 'exit 130' INT TERM

"$python" -m pytest -m "not stack and not long" >"$said" 2>&1 &
other=$!
"$python" -m pytest -m "stack and not long"
with_stack=$?
wait "$other"
without=$?
other=
cat "$said"
[ "$with_stack" -eq 0 ] && [ "$without" -eq 0 ]
