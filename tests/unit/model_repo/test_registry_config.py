"""The registry's settings: each that is wrong is named with the chart value behind it, and no password is shown."""

from pathlib import Path

import pytest

from r1plus_registry.__main__ import main
from r1plus_registry.config import read_settings
from r1plus_registry.database import FILE_VARIABLE, VARIABLE, RegistryDatabase, parse_dsn
from r1plus_registry.errors import RegistryConfigError

SECRET = "hunter2"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "token").write_text("t")
    return {
        "KUBERNETES_SERVICE_HOST": "10.96.0.1",
        "R1PLUS_API_SERVER_TOKEN": str(tmp_path / "token"),
        "R1PLUS_REGISTRY_WRITER": "system:serviceaccount:r1plus-system:r1plus-operator",
        VARIABLE: f"sqlite:///{tmp_path / 'registry.db'}",
    }


def test_all_that_the_chart_sets_is_read(env: dict[str, str]) -> None:
    found = read_settings(env)
    assert (found.api.url, found.port, found.database.is_sqlite) == ("https://10.96.0.1:443", 8080, True)
    found.database.close()


def test_the_dsn_may_lie_in_a_file(env: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text(f"postgresql://u:{SECRET}@h/d\n")
    found = read_settings(env | {VARIABLE: "", FILE_VARIABLE: str(tmp_path / "dsn")})
    assert found.database.name == "postgresql+psycopg://u:***@h/d"
    found.database.close()


def test_an_api_server_at_an_ipv6_address_is_asked_there(env: dict[str, str]) -> None:
    found = read_settings(env | {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"})
    assert found.api.url == "https://[fd00::1]:6443"
    found.database.close()


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "no DSN": ({VARIABLE: " "}, f"{VARIABLE} is not set; the chart sets it from registry.database"),
    "no URL": ({VARIABLE: SECRET}, f"{VARIABLE}: is not a database URL"),
    "a port that is no number": ({VARIABLE: f"postgresql://u:{SECRET}@h:port/d"}, "is not a database URL"),
    "another database": ({VARIABLE: f"mysql://u:{SECRET}@h/d"}, "'mysql' is not a supported database; expected postgresql://"),
    "another driver": ({VARIABLE: f"postgresql+asyncpg://u:{SECRET}@h/d"}, "'postgresql+asyncpg' is not a supported database"),
    "no database": ({VARIABLE: f"postgresql://u:{SECRET}@h"}, "has no persistent database"),
    "a database in memory": ({VARIABLE: "sqlite://"}, "has no persistent database"),
    "a DSN's file that is not there": ({FILE_VARIABLE: "/nowhere"}, f"{FILE_VARIABLE}: /nowhere: No such file or directory; the chart mounts"),
    "a folder that is not there": ({VARIABLE: "sqlite:////nowhere/at/all.db"}, "/nowhere/at is not a folder; the chart mounts"),
    "no writer": ({"R1PLUS_REGISTRY_WRITER": ""}, "R1PLUS_REGISTRY_WRITER is not set"),
    "no API server": ({"KUBERNETES_SERVICE_HOST": ""}, "set R1PLUS_API_SERVER to the API server's URL"),
    "no token": ({"R1PLUS_API_SERVER_TOKEN": "/nowhere"}, "automountServiceAccountToken: true"),
    "a port beyond": ({"R1PLUS_REGISTRY_PORT": "65536"}, "R1PLUS_REGISTRY_PORT: '65536' is not a port"),
    "a retention that is a word": ({"R1PLUS_REGISTRY_RETENTION_DAYS": "a year"}, "'a year' is not a whole number from 0; the chart sets it from registry.retention"),
    "a share of next to nothing": ({"R1PLUS_REGISTRY_SHARE_ENTRIES": "1"}, "'1' is not a whole number from 100"),
    "a port that is a word": ({"R1PLUS_REGISTRY_PORT": "http"}, "'http' is not a port"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named_and_no_password_shown(env: dict[str, str], changes: dict[str, str], said: str) -> None:
    with pytest.raises(RegistryConfigError) as refused:
        read_settings(env | changes)
    assert said in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_each_way_to_write_postgresql_is_understood(scheme: str) -> None:
    assert parse_dsn(f"{scheme}://u:p@h/d?sslmode=require").drivername == "postgresql+psycopg"


DSNS = {
    "before the host": f"postgresql://u:{SECRET}@h/d",
    "in the query": f"postgresql://u@h/d?password={SECRET}&sslmode=require",
    "in the query, of the client's key": f"postgresql://u@h/d?sslpassword={SECRET}",
    "in the query, twice": f"postgresql://u@h/d?password={SECRET}&password={SECRET}2",
}


@pytest.mark.parametrize("dsn", DSNS.values(), ids=DSNS)
def test_a_password_is_shown_nowhere_wherever_the_dsn_has_it(dsn: str) -> None:
    database = RegistryDatabase(dsn)
    assert SECRET not in database.name
    assert database.name.startswith("postgresql+psycopg://u")
    assert SECRET in database.url.render_as_string(hide_password=False)
    database.close()


def test_the_migrations_can_be_run_by_hand(
    env: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(VARIABLE, env[VARIABLE])
    assert main(["migrate", "--to", "0001"]) == 0
    assert main(["migrate"]) == 0
    assert main(["current"]) == 0
    assert capsys.readouterr().out.splitlines() == ["none -> 0001", "0001 -> 0004", "0004"]
    assert main(["migrate", "--to", "nonsense"]) == 1
    monkeypatch.setenv(VARIABLE, "nonsense")
    assert main(["migrate"]) == 2
