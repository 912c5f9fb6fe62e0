"""The settings file: for every option of every command, also for those that will be added."""

import logging
import os
import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from click.testing import CliRunner

from tickstock import logs
from tickstock.cli import main, options, walk
from tickstock.cli.settings import VARIABLES, keys_of
from tickstock.errors import SettingsError

from .e2e.program import run

ROOT = Path(__file__).parent.parent
PASSWORD = "s3cr3t-0f-a-file"  # noqa: S105 - it opens nothing


class Sample(NamedTuple):
    """A value in its three forms, and one of a wrong kind in the file's."""

    text: str
    toml: str
    wrong: str


class Case(NamedTuple):
    path: tuple[str, ...]
    command: click.Command
    option: click.Option

    @property
    def table(self) -> str:
        return f"[{'.'.join(self.path)}]"


LEAVES = {path: each for path, each in walk(main) if not isinstance(each, click.Group)}
CASES = [
    Case(path, command, option)
    for path, command in LEAVES.items()
    for option in command.params
    if isinstance(option, click.Option)
]
SHARED = {option.opts[0] for option in options.SHARED}
TOP = [case for case in CASES if case.option.opts[0] in SHARED]
SECRET = [option for option in options.SHARED if isinstance(option, options.Secret)]
each_option = pytest.mark.parametrize(
    "case", CASES, ids=lambda case: f"{' '.join(case.path)} {case.option.opts[0]}"
)
each_shared = pytest.mark.parametrize(
    "case", TOP, ids=lambda case: f"{' '.join(case.path)} {case.option.opts[0]}"
)


def samples(option: click.Option) -> tuple[Sample, Sample]:
    """Two values that the option takes, neither of them its default."""
    kind = option.type
    if option.is_flag:
        return Sample("1", "true", "1"), Sample("0", "false", "1")
    if isinstance(kind, click.Choice):
        some = [str(choice) for choice in kind.choices if choice != option.default]
        texts = [some[0], (some[1:] or [str(option.default)])[0]]
    elif isinstance(kind, click.types.IntParamType):
        return Sample("7", "7", '"7"'), Sample("8", "8", "8.5")
    elif isinstance(kind, click.types.FloatParamType):
        return Sample("7.5", "7.5", '"7.5"'), Sample("8", "8", "true")
    elif kind.name in ("datetime", "time"):
        return Sample("2025-11-24", "2025-11-24", "5"), Sample("2025-11-25", '"2025-11-25"', "true")
    elif isinstance(kind, click.Path):
        texts = ["/one/path", "/other/path"]
    elif option.callback and not isinstance(option, options.Secret):
        assert option.opts == ["--fault"], "which values does its callback take?"
        texts = ["drop=0.25", "late=0.5"]
    else:
        texts = ["one", "other"]
    one, other = (Sample(text, f'"{text}"', "5") for text in texts)
    return one, other


def written(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "settings.toml"
    file.write_text(text)
    file.chmod(mode)
    return file


def understood(case: Case, file: Path, *arguments: str) -> Any:
    """What the command would be given as this option."""
    needed = [_some(each) for each in case.command.params if isinstance(each, click.Argument)]
    context = main.make_context(
        "tickstock", ["--settings", str(file), *case.path, *arguments, *needed]
    )
    args = [*context._protected_args, *context.args]
    while isinstance(context.command, click.Group):
        name, command, args = context.command.resolve_command(context, args)
        assert command
        context = command.make_context(name, args, parent=context)
    name = str(case.option.name)
    if name in options.LEVELS:
        return logging.getLogger().level == options.LEVELS[name]
    if name == "log_format":
        return "json" if logs.is_json() else "text"
    return context.params[name]


def _some(argument: click.Argument) -> str:
    if isinstance(argument.type, click.Choice):
        return str(argument.type.choices[0])
    return "1"


def meant(case: Case, sample: Sample) -> Any:
    """The sample as the option understands it on the command line."""
    option, context = case.option, click.Context(case.command)
    if option.is_flag:
        return sample.text == "1"
    given = [sample.text] if option.multiple else sample.text
    if not option.expose_value:
        return option.type_cast_value(context, given)
    return option.process_value(context, given)


def given(case: Case, sample: Sample) -> list[str]:
    return [case.option.opts[0], *([] if case.option.is_flag else [sample.text])]


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings of ours, and the log and the environment restored."""
    known = {key for case in CASES for key in keys_of(case.option)} | set(VARIABLES.values())
    root = logging.getLogger()
    before, level, hidden = root.handlers[:], root.level, set(logs._secrets)
    for handler in before:  # pytest's own: set_up would close them
        root.removeHandler(handler)
    with monkeypatch.context() as patch:
        for name in known:
            patch.delenv(name, raising=False)
        yield
    root.handlers[:] = before
    root.setLevel(level)
    logs._secrets.clear()
    logs._secrets.update(hidden)


@each_option
def test_the_command_line_then_the_environment_then_the_file(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = samples(case.option)
    for key in keys_of(case.option):
        file = written(tmp_path, f"{case.table}\n{key} = {one.toml}")
        assert understood(case, file) == meant(case, one), key
    variables = keys_of(case.option)[1:]
    for variable in variables:
        with monkeypatch.context() as patch:
            patch.setenv(variable, other.text)
            assert understood(case, file) == meant(case, other)
            assert understood(case, file, *given(case, one)) == meant(case, one)
    file = written(tmp_path, f"{case.table}\n{keys_of(case.option)[0]} = {other.toml}")
    assert understood(case, file) == meant(case, other)
    assert understood(case, file, *given(case, one)) == meant(case, one)


@each_shared
def test_what_stands_at_the_top_is_for_each_command_that_has_it(case: Case, tmp_path: Path) -> None:
    one, other = samples(case.option)
    for key in keys_of(case.option):
        file = written(tmp_path, f"{key} = {one.toml}")
        assert understood(case, file) == meant(case, one)
        if key == case.path[0]:
            continue  # in TOML a name is either a value or a table
        file = written(tmp_path, f"{key} = {one.toml}\n{case.table}\n{key} = {other.toml}")
        assert understood(case, file) == meant(case, other)


@each_option
def test_a_wrong_kind_is_told_with_file_key_and_remedy(case: Case, tmp_path: Path) -> None:
    key = keys_of(case.option)[0]
    for sample in samples(case.option):
        for wrong in (sample.wrong, "{ x = 1 }", "[[1]]"):
            file = written(tmp_path, f"{case.table}\n{key} = {wrong}")
            with pytest.raises(SettingsError) as caught:
                understood(case, file)
            assert caught.value.exit_code == 2
            assert re.fullmatch(
                rf"settings file {file}: {key} in {re.escape(case.table)} must be .+, such as {key} = .+",
                caught.value.message,
            )


@pytest.mark.parametrize("path", sorted({case.path for case in CASES}), ids=" ".join)
def test_a_key_that_no_option_has(path: tuple[str, ...], tmp_path: Path) -> None:
    case = Case(path, LEAVES[path], click.Option(["--settings"]))
    for table in ("", f"[{'.'.join(path)}]"):
        file = written(tmp_path, f"{table}\nnonsense = 1")
        with pytest.raises(SettingsError) as caught:
            understood(case, file)
        place = f"nonsense in {table}" if table else "nonsense"
        assert caught.value.message.startswith(
            f"settings file {file}: {place} is not a setting; `tick"
        )
        assert caught.value.message.endswith(" --help` lists them")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("api-kee = 'x'", "api-kee is not a setting: did you mean api-key?"),
        ("data_dir = 'x'", "data_dir is not a setting: did you mean data-dir?"),
        ("silence-limit = 5", "silence-limit is not a setting of all commands: set it in [ingest]"),
        ("[ingst]", "[ingst] is not a command: did you mean ingest?"),
        ("[ingest]\nsymbol = 'A'", "symbol in [ingest] is not a setting: did you mean symbols?"),
        ("[ingest]\nmetrics-port = 99999", "metrics-port in [ingest]: 99999 is not in the range"),
        ("[ingest]\nchannel = ['X']", "channel in [ingest]: 'X' is not one of"),
        ("[ingest]\nTICKSTOCK_SYMBOLS = 'A'\nsymbols = 'A'", "symbols in [ingest] is set as TICKSTOCK"),
        ("[db]\njson = true", "json in [db]: put settings into one of [db.migrate], "),
        ("[simulate]\nstart = 2025-11-24T10:00:00Z", "start in [simulate] must be a day or a time"),
        ("[simulate]\nstart = 2025-11-24T10:00:30", "start in [simulate]: '2025-11-24T10:00:30'"),
        ("ingest = 5", "ingest is a command: put its settings into a table, [ingest]"),
        ('data-dir = "\\u0000"', "data-dir must be text, such as"),
        ("engine = 5", 'engine must be text, such as engine = "…"'),
        ("x =", "is not TOML: "),
        pytest.param(f"x = {'[' * 9999}", "is not TOML: ", id="many brackets"),
        ("x = '\udcff'", "is not TOML: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(text, errors="surrogateescape")
    table = re.match(r"\[(ingest|simulate)\]", text)
    words = (table[1],) if table else ("db", "status")
    done = run("--settings", str(file), *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: settings file {file}: {said}"), done.stderr
    assert done.stderr.count("\n") == 1
    shown = CliRunner().invoke(main, ["--settings", str(file), *words, "--help"])
    assert shown.exit_code == 0


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    done = run("status", TICKSTOCK_SETTINGS=str(tmp_path / "gone.toml"))
    assert done.returncode == 2
    assert done.stderr.endswith(
        "No such file or directory): correct --settings (TICKSTOCK_SETTINGS)\n"
    )
    done = run("status", "--settings", "x")
    assert done.returncode == 2
    assert "--settings comes before the command: tickstock --settings FILE" in done.stderr


@pytest.mark.parametrize("option", SECRET, ids=lambda option: str(option.opts[0]))
def test_a_secret_that_others_may_read_is_refused(option: click.Option, tmp_path: Path) -> None:
    secret = PASSWORD if option.name == "api_key" else f"redis://me:{PASSWORD}@nowhere/0"
    for key in keys_of(option):
        for table in ("", "[ingest]", "[listen]"):
            text = f"{table}\n{key} = '{secret}'"
            # Root's own may be read by a group, nobody else's; here root runs the tests, or not.
            for mode in (0o604, 0o606, 0o620, *((0o640,) if os.geteuid() else ())):
                file = written(tmp_path, text, mode)
                done = CliRunner().invoke(main, ["--settings", str(file), "status"])
                assert done.exit_code == 2, done.output
                assert f"others can read it, and {key} is a secret: chmod 600 {file}" in done.output
                assert PASSWORD not in done.output
    harmless = written(tmp_path, "redis-url = 'redis://nowhere/0'", 0o644)
    ingest = next(each for each in CASES if each.option.name == "redis_url")
    assert understood(ingest, harmless) == "redis://nowhere/0"


@pytest.mark.parametrize("path", LEAVES, ids=" ".join)
def test_help_shows_no_secret_of_the_file(path: tuple[str, ...], tmp_path: Path) -> None:
    keys = "".join(f"{keys_of(each)[0]} = 'wss://me:{PASSWORD}@nowhere'\n" for each in SECRET)
    for help_ in ("-h", "--help"):
        file = written(tmp_path, keys)
        done = CliRunner().invoke(main, ["--settings", str(file), *path, help_])
        assert done.exit_code == 0
        assert "Usage: " in done.output
        assert PASSWORD not in done.output


def test_a_wrong_secret_is_not_repeated(tmp_path: Path) -> None:
    for key in (key for option in SECRET for key in keys_of(option)):
        file = written(tmp_path, f"{key} = ['{PASSWORD}']")
        done = CliRunner().invoke(main, ["--settings", str(file), "ingest", "--verbose"])
        assert done.exit_code == 2
        assert f"{key} must be text" in done.output
        assert PASSWORD not in done.output


def test_where_the_file_is_looked_for(tmp_path: Path) -> None:
    with ExitStack() as stack:
        ports = []
        for _ in range(4):  # that refuse connections, and that nobody else takes meanwhile
            taken = stack.enter_context(socket.socket())
            taken.bind(("127.0.0.1", 0))
            ports.append(taken.getsockname()[1])
        url = "postgresql://me@127.0.0.1:{}/market"
        in_home, in_xdg, named = (tmp_path / name for name in ("h/.config", "x", "n"))
        for folder, port in zip((in_home, in_xdg, named), ports, strict=False):
            (folder / "tickstock").mkdir(parents=True)
            written(folder / "tickstock", f"database-url = '{url.format(port)}'")

        def port_of(*arguments: str, **settings: str) -> int:
            places = {"TICKSTOCK_SETTINGS": "", "XDG_CONFIG_HOME": "", "HOME": str(tmp_path / "h")}
            done = run(*arguments, "db", "status", **places | settings)
            assert done.returncode == 3, done.stderr
            found = re.match(r"Error: no database at 127\.0\.0\.1:(\d+), ", done.stderr)
            assert found, done.stderr
            return int(found[1])

        assert port_of() == ports[0]
        xdg = {"XDG_CONFIG_HOME": str(in_xdg)}
        assert port_of(**xdg) == ports[1]
        unusable = {
            "XDG_CONFIG_HOME": f"/{'x' * 300}",
            "TICKSTOCK_DATABASE_URL": url.format(ports[3]),
        }
        assert port_of(**unusable) == ports[3]
        file = str(named / "tickstock/settings.toml")
        assert port_of(**xdg, TICKSTOCK_SETTINGS=file) == ports[2]
        assert port_of("--settings", file, **xdg) == ports[2]
        environment = {"TICKSTOCK_DATABASE_URL": url.format(ports[3])}
        assert port_of("--settings", os.devnull, **xdg, **environment) == ports[3]
        assert port_of("--settings", file, **environment) == ports[3]


@pytest.mark.parametrize("key", [*VARIABLES, *VARIABLES.values()])
def test_variables_without_an_option(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = VARIABLES.get(key, key)
    case = CASES[0]
    file = written(tmp_path, f"{key} = 'there'")
    expected = "there" if variable == "TICKSTOCK_ENGINE" else str(tmp_path / "there")
    monkeypatch.setenv(variable, "")
    understood(case, file)
    assert os.environ[variable] == expected
    monkeypatch.setenv(variable, "elsewhere")
    understood(case, file)
    assert os.environ[variable] == "elsewhere"


@pytest.mark.parametrize(
    ("file", "variable", "argument", "level"),
    [
        ("quiet", None, None, logging.WARNING),
        ("verbose", None, "--quiet", logging.WARNING),
        ("quiet", None, "--verbose", logging.DEBUG),
        ("quiet", "TICKSTOCK_VERBOSE", None, logging.DEBUG),
        ("verbose", "TICKSTOCK_QUIET", None, logging.WARNING),
        (None, "TICKSTOCK_QUIET", "--verbose", logging.DEBUG),
        (None, "TICKSTOCK_VERBOSE", "--quiet", logging.WARNING),
        (None, None, None, logging.INFO),
    ],
)
def test_quiet_and_verbose_are_one_setting(
    file: str | None,
    variable: str | None,
    argument: str | None,
    level: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if variable:
        monkeypatch.setenv(variable, "1")
    text = f"{file} = true" if file else ""
    understood(CASES[0], written(tmp_path, text), *([argument] if argument else []))
    assert logging.getLogger().level == level


def test_an_empty_list_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    (case,) = (each for each in CASES if each.option.opts == ["--channel"])
    assert understood(case, written(tmp_path, "[ingest]\nchannel = []")) == ("AM",)
    assert understood(case, written(tmp_path, "[ingest]\nchannel = 'T'")) == ("T",)


def test_paths_are_meant_from_the_file_s_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/of/mine")
    case = next(each for each in CASES if each.option.opts == ["--patterns"])
    for text, expected in (
        ("mine", tmp_path / "mine"),
        ("~/mine", Path("/home/of/mine/mine")),
        ("~nobody-at-all/mine", tmp_path / "~nobody-at-all/mine"),
        ("/mine", Path("/mine")),
    ):
        assert understood(case, written(tmp_path, f"patterns = '{text}'")) == expected


def test_the_stronger_of_two_ways_to_name_symbols(tmp_path: Path) -> None:
    """A list on the command line is no quarrel with a file of symbols in the settings."""
    file = written(tmp_path, "[ingest]\nsymbols-file = 'none'\napi-key = 'x'")
    said = run("--settings", str(file), "ingest").stderr
    assert "--symbols-file" in said
    assert "can't be read" in said
    said = run("--settings", str(file), "ingest", "--symbols", ",").stderr
    assert "--symbols ',' names no ticker" in said
    said = run("--settings", str(file), "ingest", TICKSTOCK_SYMBOLS=",").stderr
    assert "--symbols ',' names no ticker" in said
    said = run("ingest", "--symbols", "A", "--symbols-file", "x", "--api-key", "x").stderr
    assert "Give either --symbols" in said


def test_what_is_set_of_history_leaves_live_scanning_alone(tmp_path: Path) -> None:
    file = written(tmp_path, "[scan]\ntimeframe = ['5min']\nsymbol = 'AAPL'\njson = true")
    nowhere = {"TICKSTOCK_DATABASE_URL": "host=/nowhere"}
    assert run("--settings", str(file), "scan", **nowhere).returncode == 3
    done = run("--settings", str(file), "scan", "--symbol", "AAPL", **nowhere)
    assert done.returncode == 2
    assert "give --from, too" in done.stderr


def test_the_example_of_the_document_is_understood(tmp_path: Path) -> None:
    text = (ROOT / "docs/operations.md").read_text()
    (example,) = re.findall(r"^```toml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    file = written(tmp_path, example)
    found = {
        (case.path, case.option.opts[0]): understood(case, file)
        for case in CASES
        if case.path in [("ingest",), ("scan",), ("listen",), ("db", "status")]
    }
    assert found[("ingest",), "--symbols"] == "AAPL,TSLA"
    assert found[("ingest",), "--channel"] == ("AM", "T")
    assert found[("ingest",), "--metrics-port"] == 9464
    assert found[("listen",), "--timeframe"] == ("5min", "1hour")
    assert found[("scan",), "--redis-url"] == "redis://127.0.0.1:6379/0"
    assert found[("scan",), "--patterns"] == tmp_path / "patterns"
    assert found[("db", "status"), "--json"] is True
