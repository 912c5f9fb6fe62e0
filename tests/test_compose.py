"""docker-compose.yml, Dockerfile and scripts/make-env, checked against the real command line."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import click
import psycopg
import pytest
import yaml

import tickstock
from tickstock.cli import main
from tickstock.simulator.server import PATH

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
OURS = {name: each for name, each in SERVICES.items() if "build" in each}
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LIBPQ = {
    option.envvar.decode() for option in psycopg.pq.Conninfo.get_defaults() if option.envvar
} - {""}

PASSWORDS = {
    "POSTGRES_PASSWORD", "WRITER_DB_PASSWORD", "REDIS_PASSWORD", "GRAFANA_PASSWORD", "GRAFANA_DB_PASSWORD",
}  # fmt: skip
# Done once, at every start, by the owner.
STEPS = {"migrate", "grant", "grant-writer"}

# Name and password that the step makes.
WRITER = (
    SERVICES["grant-writer"]["command"][-1],
    SERVICES["grant-writer"]["environment"]["TICKSTOCK_ROLE_PASSWORD"],
)

ours = pytest.mark.parametrize("name", OURS)
every = pytest.mark.parametrize("name", SERVICES)


class Invocation(NamedTuple):
    words: tuple[str, ...]
    """The command's name, such as `db migrate`."""
    command: click.Command
    values: dict[str, Any]
    """What the command line gives, by parameter."""


def parse(arguments: Sequence[str]) -> Invocation:
    """Read a command line of tickstock as click does, without running anything.

    Raises click.UsageError for an unknown command or option, or a value of the wrong kind.
    """
    command: click.Command = main
    words, rest = [], list(arguments)
    while isinstance(command, click.Group):
        if not rest or (found := command.get_command(click.Context(command), rest[0])) is None:
            raise click.UsageError(f"no command: tickstock {' '.join(arguments)}")
        words.append(rest.pop(0))
        command = found
    context = click.Context(command, **{**main.context_settings, **command.context_settings})
    given, left, order = command.make_parser(context).parse_args(rest)
    if left:
        raise click.UsageError(f"too many arguments: tickstock {' '.join(arguments)}")
    values = {
        str(parameter.name): parameter.type_cast_value(context, given[parameter.name])
        for parameter in order
        # What stands for "not given" differs between versions of click.
        if isinstance(given[parameter.name], str | int | tuple | list)
    }
    return Invocation(tuple(words), command, values)


def envvars(command: click.Command) -> set[str]:
    """The environment variables that a command reads by its options."""
    names: set[str] = set()
    for parameter in command.params:
        given = parameter.envvar or []
        names.update([given] if isinstance(given, str) else given)
    return names


def required_variables() -> set[str]:
    return set(re.findall(r"\$\{(\w+):\?[^}]+\}", TEXT))


def optional_variables() -> set[str]:
    return set(re.findall(r"\$\{(\w+):-[^}]*\}", TEXT))


def test_the_services_are_there() -> None:
    assert {"db", "redis", "migrate", "ingest", "scan", "simulator", "grafana"} <= SERVICES.keys()
    assert OURS.keys() == SERVICES.keys() - {"db", "redis", "grafana"}


def test_the_compose_specification_allows_it() -> None:
    """Its published schema, as check-jsonschema carries it: nothing is fetched."""
    check = ["-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    command = [sys.executable, *check, str(ROOT / "docker-compose.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@ours
def test_command_exists_and_takes_these_options(name: str) -> None:
    parse(OURS[name]["command"])


@ours
def test_help_of_the_command(name: str) -> None:
    words = parse(OURS[name]["command"]).words
    command = [sys.executable, "-m", "tickstock", *words, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"tickstock {' '.join(words)}" in done.stdout


@ours
def test_command_knows_its_environment(name: str) -> None:
    given = set(OURS[name].get("environment", {}))
    command = parse(OURS[name]["command"]).command
    # A password that has no option, so that nobody gives it on the command line.
    told = set(re.findall(r"\bTICKSTOCK_\w+", command.help or ""))
    assert given <= envvars(command) | told | LIBPQ


@ours
def test_what_the_command_requires_is_given(name: str) -> None:
    invocation = parse(OURS[name]["command"])
    environment = set(OURS[name].get("environment", {}))
    for parameter in invocation.command.params:
        if parameter.required and invocation.values.get(str(parameter.name)) is None:
            assert parameter.envvar in environment, parameter.name


def test_who_speaks_to_the_database_is_told_where_it_is() -> None:
    for name, service in OURS.items():
        if "TICKSTOCK_DATABASE_URL" in envvars(parse(service["command"]).command):
            url = psycopg.conninfo.conninfo_to_dict(
                service["environment"]["TICKSTOCK_DATABASE_URL"]
            )
            database = SERVICES[str(url["host"])]["environment"]
            assert url["dbname"] == database["POSTGRES_DB"], name
            login = (url["user"], service["environment"]["PGPASSWORD"])
            if name in STEPS:
                assert login == (database["POSTGRES_USER"], database["POSTGRES_PASSWORD"]), name
            else:
                assert login == WRITER, name
                assert "grant-writer" in service["depends_on"], name


def passwords_of(service: Mapping[str, Any]) -> Iterator[str]:
    for key, value in service.get("environment", {}).items():
        if "PASSWORD" in key or key == "REDISCLI_AUTH":
            yield value
        elif value.startswith("redis://"):
            yield value.removeprefix("redis://:").partition("@")[0]
    for word, following in pairwise(service.get("command", [])):
        if word == "--requirepass":
            yield following


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"simulator"}))
def test_passwords_have_no_default(name: str) -> None:
    passwords = list(passwords_of(SERVICES[name]))
    assert passwords
    for password in passwords:
        assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", password)


def test_every_variable_is_required_or_has_a_default() -> None:
    used = set(re.findall(r"(?<!\$)\$\{?(\w+)", TEXT))
    assert used == required_variables() | optional_variables()
    assert required_variables() == PASSWORDS


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - OURS.keys()))
def test_images_are_pinned(name: str) -> None:
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+(-\w+)?", SERVICES[name]["image"])


def test_our_image_is_of_this_version() -> None:
    images = {service["image"] for service in OURS.values()}
    assert images == {f"tickstock:{tickstock.__version__}"}


@every
def test_ports_are_on_the_loopback_interface_only(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{\w+:-\d+\}:\d+", port)


@every
def test_dependencies_can_be_met(name: str) -> None:
    for other, wanted in SERVICES[name].get("depends_on", {}).items():
        if wanted["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        else:
            assert wanted["condition"] == "service_completed_successfully"
            assert SERVICES[other]["restart"] == "no"


@every
def test_restart_policies(name: str) -> None:
    assert SERVICES[name]["restart"] == ("no" if name in STEPS else "unless-stopped")


@every
def test_memory_is_limited(name: str) -> None:
    limit = SERVICES[name]["mem_limit"].removeprefix("${DB_MEMORY:-").removesuffix("}")
    assert re.fullmatch(r"\d+[mg]", limit)


@pytest.mark.parametrize("name", ["grafana", *OURS])
def test_no_more_rights_than_needed(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


def test_profiles_name_one_market_each() -> None:
    profiles = {name: service.get("profiles") for name, service in SERVICES.items()}
    assert profiles["ingest"] == ["live"]
    assert profiles["simulator"] == profiles["ingest-simulated"] == ["simulator"]
    always = SERVICES.keys() - {"ingest", "simulator", "ingest-simulated"}
    assert {profiles[name] for name in always} == {None}


def test_the_simulated_feed_is_where_the_simulator_is() -> None:
    simulator, ingest = SERVICES["simulator"], SERVICES["ingest-simulated"]
    served = parse(simulator["command"])
    options = {p.name: p.default for p in served.command.params} | served.values
    # It listens on the loopback interface of the network that both share.
    assert ingest["network_mode"] == "service:simulator"
    wanted = parse(ingest["command"]).values["feed_url"]
    assert wanted == f"ws://127.0.0.1:{options['port']}{PATH}"
    assert ingest["environment"]["MASSIVE_API_KEY"] == options["key"]
    assert f"('127.0.0.1', {options['port']})" in simulator["healthcheck"]["test"][-1]


def test_volumes_are_declared() -> None:
    declared = yaml.safe_load(TEXT)["volumes"].keys()
    used = [v.split(":") for service in SERVICES.values() for v in service.get("volumes", [])]
    assert set(declared) == {source for source, *_ in used if "/" not in source}
    for source, _, *mode in used:
        if "/" in source:
            assert (ROOT / source).is_dir()
            assert mode == ["ro"]


def test_dockerfile_is_pinned_and_not_root() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert bases
    for base in bases:
        assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)
    assert re.findall(r"^USER (\S+)", DOCKERFILE, re.MULTILINE)[-1] == "tickstock"
    assert 'ENTRYPOINT ["tickstock"]' in DOCKERFILE


def test_dockerfile_copies_what_the_wheel_is_made_of() -> None:
    copied = {
        source
        for line in re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.MULTILINE)
        for source in line.split()
    }
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    needed |= {*wheel["packages"], *wheel["force-include"]}
    assert copied == needed
    # All else is kept out of the build.
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == needed | {"constraints.txt"}


def make_env(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a copy of scripts/make-env in a checkout of its own."""
    scripts = folder / "scripts"
    scripts.mkdir(exist_ok=True, parents=True)
    for name in ("make-env", "common.sh"):
        (scripts / name).write_bytes((ROOT / "scripts" / name).read_bytes())
    return subprocess.run(
        ["bash", str(scripts / "make-env")],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def read_env(folder: Path) -> dict[str, str]:
    lines = (folder / ".env").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {name: value.strip("'") for name, value in pairs}


def test_make_env_sets_every_variable(tmp_path: Path) -> None:
    assert make_env(tmp_path).returncode == 0
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    written = read_env(tmp_path)
    assert written.keys() == required_variables() | optional_variables() | {"COMPOSE_PROFILES"}
    assert written["COMPOSE_PROFILES"] == "simulator"
    defaults = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", TEXT))
    assert {name: written[name] for name in defaults} == defaults


def test_make_env_makes_passwords_that_fit_into_a_url_and_never_the_same(tmp_path: Path) -> None:
    passwords = set()
    for folder in (tmp_path / "a", tmp_path / "b"):
        make_env(folder)
        written = read_env(folder)
        passwords |= {written[name] for name in PASSWORDS}
    assert len(passwords) == 2 * len(PASSWORDS)
    assert all(re.fullmatch("[0-9a-f]{48}", password) for password in passwords)


def test_make_env_takes_the_live_feed_where_there_is_a_key(tmp_path: Path) -> None:
    make_env(tmp_path, MASSIVE_API_KEY="k$y", TICKSTOCK_SYMBOLS="AAPL,TSLA")
    written = read_env(tmp_path)
    assert written["COMPOSE_PROFILES"] == "live"
    assert written["MASSIVE_API_KEY"] == "k$y"
    assert written["TICKSTOCK_SYMBOLS"] == "AAPL,TSLA"
    assert "MASSIVE_API_KEY='k$y'" in (tmp_path / ".env").read_text()  # compose expands no '…'


def test_make_env_replaces_nothing(tmp_path: Path) -> None:
    make_env(tmp_path)
    before = (tmp_path / ".env").read_text()
    again = make_env(tmp_path)
    assert again.returncode == 0
    assert "is there already; added: nothing" in again.stderr + again.stdout
    assert (tmp_path / ".env").read_text() == before


def test_make_env_adds_the_passwords_that_an_older_file_lacks(tmp_path: Path) -> None:
    older = "POSTGRES_PASSWORD=kept\nMASSIVE_API_KEY='k'"  # without a newline at its end
    (tmp_path / ".env").write_text(older)
    assert make_env(tmp_path).returncode == 0
    written = read_env(tmp_path)
    assert written.keys() == {*PASSWORDS, "MASSIVE_API_KEY"}
    kept = {"POSTGRES_PASSWORD": "kept", "MASSIVE_API_KEY": "k"}
    assert written.items() >= kept.items()
    assert written.keys() >= required_variables()
