"""bin/test: the tests, on a PostgreSQL and a Valkey of their own unless URLs are given."""

from __future__ import annotations

import os
import subprocess
import sys

from config.local.ephemeral import test_environment
from config.local.stack import ROOT


def main(arguments: list[str]) -> int:
    with test_environment(os.environ) as found:
        environment = {**os.environ, **found}
        python = sys.executable
        migrations = [python, "manage.py", "makemigrations", "--check", "--dry-run"]
        code = subprocess.run(migrations, cwd=ROOT, env=environment, check=False).returncode
        if code != 0:
            print("bin/test: a model changed without a migration.", file=sys.stderr)
            return code
        tests = [python, "-m", "pytest", *arguments]
        return subprocess.run(tests, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
