"""bin/manage: a management command in the environment of this machine's installation.

While bin/start runs, the command joins it. Otherwise the database and the broker are started for
as long as the command takes, and stopped afterwards.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from config.local.environment import Addresses, Secrets, build_environment
from config.local.progress import Screen
from config.local.stack import ROOT, Stack, choose_world, require_own, state_folder
from config.local.state import AlreadyRuns, end_orphans, lock
from config.local.supervisor import Supervisor


def run_command(arguments: list[str], environment: dict[str, str]) -> int:
    command = [sys.executable, str(ROOT / "manage.py"), *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode


def main(arguments: list[str]) -> int:
    var = state_folder(os.environ)
    screen = Screen()
    try:
        require_own(var)
        with lock(var):
            return _with_stack(arguments, Supervisor(var, screen.say))
    except AlreadyRuns:
        kept = var / "run" / "environment.json"
        return run_command(arguments, json.loads(kept.read_text(encoding="utf-8")))
    except (RuntimeError, OSError) as error:
        screen.say(f"bin/manage: {error}")
        return 1


def _with_stack(arguments: list[str], supervisor: Supervisor) -> int:
    var = supervisor.var
    end_orphans(var, supervisor.say)
    # Nothing is sent from here, and no sandbox runs; the world is the one that was chosen.
    mark = var / "world"
    in_sandbox = not mark.exists() or mark.read_text(encoding="ascii").strip() == "sandbox"
    choose_world(var, in_sandbox=in_sandbox)
    try:
        database_url, redis_url = Stack(supervisor, os.environ).start_both()
        addresses = Addresses(
            database_url=database_url,
            redis_url=redis_url,
            web_url="http://127.0.0.1:8000",
            flower_url="http://127.0.0.1:5555",
            # The discard port: in the sandbox's world, but with nobody to answer now.
            dns="127.0.0.1:9" if in_sandbox else None,
        )
        secrets = Secrets.kept_in(var / "secrets")
        return run_command(arguments, build_environment(os.environ, addresses, secrets, var))
    finally:
        supervisor.stop_all()


if __name__ == "__main__":
    os.umask(0o077)  # what is kept is people's data
    sys.exit(main(sys.argv[1:]))
