#!/bin/sh
# Finds a Python that the wheels exist for and hands over to bootstrap.py. PYTHON=/path/to/python chooses one.
set -u
here=$(cd "$(dirname "$0")" && pwd)
usable='import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
for python in ${PYTHON:-python3.11 python3 python3.12 python3.13}; do
    if command -v "$python" >/dev/null 2>&1 && "$python" -S -c "$usable" >/dev/null 2>&1; then
        exec "$python" -S -B "$here/bootstrap.py" "$@"
    fi
done
echo "dualview needs Python 3.11, 3.12 or 3.13, and ${PYTHON:-neither python3 nor python3.11 to python3.13} is not one:" \
    "install one (Debian: apt-get install python3 python3-venv python3-dev) or set PYTHON=/path/to/python." >&2
exit 1
