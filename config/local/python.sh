# Sourced by the scripts in bin/ with $root set: finds Python, brings .venv up to date.
# Usage: . python.sh; prepare [--dev]; then run "$root/.venv/bin/python".

unset PYTHONHOME PYTHONPATH

find_python() {
    # Each is tried by running it: a name in PATH may be a version manager's empty promise.
    for candidate in "$root/.venv/bin/python" python3 python3.13 python3.12 python3.11 python3.14; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    found=$(python3 --version 2>&1) || found="no python3"
    echo "Postroad needs Python 3.11 or newer; here is: $found." >&2
    echo "Install it (Debian 12, Ubuntu 24.04: apt install python3 python3-venv; macOS: brew install python)." >&2
    return 1
}

prepare() {
    python=$(find_python) || exit 1
    "$python" -I "$root/config/local/install.py" "$@" || exit 1
    cd "$root" || exit 1
}
