from __future__ import annotations

from pathlib import Path

from config.local.environment import Addresses, Secrets, build_environment

VAR = Path("/srv/postroad/var")
SECRETS = Secrets(secret_key="generated", flower_password="flower")
SANDBOX = Addresses(
    database_url="postgres://postroad:p@127.0.0.1:54320/postroad",
    redis_url="redis://:p@127.0.0.1:63790/0",
    web_url="http://127.0.0.1:8000",
    flower_url="http://127.0.0.1:5555",
    dns="127.0.0.1:8053",
    sandbox_url="http://127.0.0.1:8025",
)
REAL = Addresses(SANDBOX.database_url, SANDBOX.redis_url, SANDBOX.web_url, SANDBOX.flower_url)


def test_the_sandbox_is_on_with_its_name_server_and_inbox() -> None:
    built = build_environment({}, SANDBOX, SECRETS, VAR)

    assert built["POSTROAD_SANDBOX"] == "on"
    assert built["POSTROAD_DNS"] == "127.0.0.1:8053"
    assert built["POSTROAD_SANDBOX_URL"] == "http://127.0.0.1:8025"


def test_the_environment_cannot_point_the_sandbox_at_real_name_servers() -> None:
    given = {"POSTROAD_DNS": "9.9.9.9:53", "POSTROAD_SANDBOX": "off"}

    built = build_environment(given, SANDBOX, SECRETS, VAR)

    assert built["POSTROAD_DNS"] == "127.0.0.1:8053"
    assert built["POSTROAD_SANDBOX"] == "on"


def test_real_mail_asks_the_name_server_that_the_environment_names() -> None:
    built = build_environment({"POSTROAD_SANDBOX": "on"}, REAL, SECRETS, VAR)

    assert built["POSTROAD_SANDBOX"] == "off"
    assert "POSTROAD_DNS" not in built


def test_what_the_person_set_wins_over_what_is_generated() -> None:
    given = {
        "SECRET_KEY": "mine",
        "FLOWER_BASIC_AUTH": "me:mine",
        "POSTROAD_PUBLIC_URL": "https://m",
    }

    built = build_environment(given, SANDBOX, SECRETS, VAR)

    assert {name: built[name] for name in given} == given


def test_an_empty_variable_counts_as_not_set() -> None:
    assert build_environment({"SECRET_KEY": ""}, SANDBOX, SECRETS, VAR)["SECRET_KEY"] == "generated"


def test_a_workers_sigterm_is_a_soft_shutdown() -> None:
    assert build_environment({}, SANDBOX, SECRETS, VAR)["REMAP_SIGTERM"] == "SIGQUIT"
