"""Where settings come from, which source wins, and what is said of mistakes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_quantmon.settings import Settings, load_settings, loading
from otel_quantmon.settings.loading import setting_sources
from otel_quantmon.settings.table import OTEL_PREFIX, PREFIX, TABLE

Load = Callable[..., Settings]
Warnings = Callable[[], list[str]]


def test_nothing_set_is_the_defaults(warnings: Warnings) -> None:
    """A process that sets nothing gets `Settings()` and reads of no trouble."""
    assert load_settings({"PATH": "/bin"}) == Settings()
    assert warnings() == []


def test_the_process_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an argument it is `os.environ` that counts."""
    monkeypatch.setenv("QUANTMON_MAX_MODELS", "7")
    assert load_settings().max_models == 7


def test_later_sources_win(load: Load, warnings: Warnings) -> None:
    """Defaults, file, `QUANTMON_*`, `OTEL_PYTHON_QUANTMON_*`: in this order, setting by setting."""
    toml = "warmup = 1\nmax_models = 1\nqueue_size = 1"
    variables = {"QUANTMON_WARMUP": "2", "QUANTMON_MAX_MODELS": "2", "OTEL_PYTHON_QUANTMON_WARMUP": "3"}
    found = load(toml, **variables)
    assert (found.warmup, found.max_models, found.queue_size, found.window_size) == (3, 2, 1, 1000)
    assert warnings() == []


def test_a_model_section_wins_over_the_environment(load: Load) -> None:
    """A value for one model is more specific than a variable for all, and is the only one that is."""
    found = load('timeout = "1s"\n[models.ocr]\ntimeout = "none"', QUANTMON_TIMEOUT="2s", QUANTMON_WARMUP="3")
    assert found.for_model("ocr").timeout is None
    assert found.for_model("ocr").warmup == 3
    assert found.for_model("other").timeout == 2


def test_the_file_named_by_the_flag_wins(tmp_path: Path) -> None:
    """`--quantmon_config` replaces the file that `QUANTMON_CONFIG` names, it does not add to it."""
    (tmp_path / "a.toml").write_text("warmup = 1\nmax_models = 1")
    (tmp_path / "b.toml").write_text("warmup = 2")
    found = load_settings(
        {PREFIX + "CONFIG": str(tmp_path / "a.toml"), OTEL_PREFIX + "CONFIG": str(tmp_path / "b.toml")}
    )
    assert (found.warmup, found.max_models) == (2, 200)


def test_an_empty_variable_is_not_set(load: Load, warnings: Warnings) -> None:
    """As the OpenTelemetry specification has it, an empty variable neither sets nor complains."""
    assert load("warmup = 1", QUANTMON_WARMUP="", OTEL_PYTHON_QUANTMON_WARMUP="  ").warmup == 1
    assert warnings() == []


def test_paths_in_the_file_are_relative_to_it(load: Load, tmp_path: Path) -> None:
    """A file of settings can move with its models; a variable means the working directory, as anywhere."""
    toml = 'baseline = "a.st"\n[reference]\nx = "x.onnx"\ny = "/y.onnx"\n[models.z]\nreference = "z.onnx"'
    found = load(toml)
    assert found.baseline == str(tmp_path / "a.st")
    assert found.reference == {"x": str(tmp_path / "x.onnx"), "y": os.path.join(tmp_path, "/y.onnx")}
    assert found.for_model("z").reference == str(tmp_path / "z.onnx")
    assert load(toml, QUANTMON_BASELINE="b.st").baseline == "b.st"


@pytest.mark.parametrize(
    ("given", "meant"),
    [("large", "{}/large"), ("/large", "/large"), ("s3://bucket/large", "s3://bucket/large")],
)
def test_a_store_in_the_file_is_relative_to_it_unless_it_is_a_url(
    load: Load, tmp_path: Path, given: str, meant: str
) -> None:
    """A folder is a path as any other in the file; the address of a bucket is not."""
    assert load(f'remote_store = "{given}"').remote_store == meant.format(tmp_path)
    assert load("", QUANTMON_REMOTE_STORE=given).remote_store == given


def test_a_relative_file_is_where_it_was_when_the_process_began(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application may change its directory before it loads a model: what the file names stays where it is."""
    (tmp_path / "q.toml").write_text('baseline = "a.st"\n[models.z]\nreference = "z.onnx"')
    monkeypatch.chdir(tmp_path)
    found = load_settings({"QUANTMON_CONFIG": "q.toml"})
    assert found.config == str(tmp_path / "q.toml")
    assert found.baseline == str(tmp_path / "a.st")
    assert found.for_model("z").reference == str(tmp_path / "z.onnx")
    assert setting_sources({"QUANTMON_CONFIG": "q.toml"})["baseline"] == str(tmp_path / "q.toml")


@pytest.mark.skipif(os.name != "posix", reason="a directory that a process is in cannot be removed")
def test_a_directory_that_was_removed_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: Warnings
) -> None:
    """A relative file cannot be found then, which is said."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert load_settings({"QUANTMON_CONFIG": "q.toml"}).warmup == 10
    assert ["q.toml cannot be read" in message for message in warnings()] == [True]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"QUANTMON_WARMUP": "many"},
            "QUANTMON_WARMUP: 'many' is not accepted and is ignored; give a whole number",
        ),
        ({"OTEL_PYTHON_QUANTMON_SPANS": "some"}, "OTEL_PYTHON_QUANTMON_SPANS: 'some' is not accepted"),
        (
            {"QUANTMON_TIMOUT": "1s"},
            "QUANTMON_TIMOUT is ignored: no such variable; did you mean QUANTMON_TIMEOUT?",
        ),
        ({"QUANTMON_ZZZZZZZZ": "1"}, "no such variable; known are QUANTMON_CONFIG, "),
        ({"QUANTMON_VERSION": "1"}, "QUANTMON_VERSION is ignored: it can be set only in a model's section"),
        (
            {"QUANTMON_CONFIG": "/nowhere/q.toml"},
            "QUANTMON_CONFIG: /nowhere/q.toml cannot be read: No such file",
        ),
        ({"QUANTMON_CONFIG": "/"}, "QUANTMON_CONFIG: / cannot be read: Is a directory"),
        ({"QUANTMON_WARMUP": "9" * 5000}, "9..."),
    ],
)
def test_a_wrong_variable_is_said_once(variables: dict[str, str], said: str, warnings: Warnings) -> None:
    """One warning names the variable, what it holds and what it may hold; loading again is silent."""
    for _ in range(2):
        assert load_settings(variables).warmup == 10
    assert [said in message for message in warnings()] == [True]
    assert len(warnings()[0]) < 1000


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (
            "warmup = 'ten'",
            "quantmon.toml: warmup: 'ten' is not accepted and is ignored; give a whole number from",
        ),
        ("timeout = 0", "quantmon.toml: timeout: 0 is not accepted and is ignored; give a duration"),
        ("spans = []", "quantmon.toml: spans: an array is not accepted"),
        ("spans = {}", "quantmon.toml: spans: a table is not accepted"),
        ("baseline_state = 1", "baseline_state: 1 is not accepted and is ignored; give the path of a folder"),
        (
            "remote_directory = 1",
            "remote_directory: 1 is not accepted and is ignored; give the path of a folder",
        ),
        ("baseline = 1", "baseline: 1 is not accepted and is ignored; give the path of a file"),
        ("warmup = 0x" + "f" * 5000, "warmup: a number too long to show is not accepted"),
        ("warmpu = 1", "quantmon.toml: warmpu is ignored: no such setting; did you mean warmup?"),
        ("[model.x]", "quantmon.toml: model is ignored: no such setting"),
        ("config = 'x'", "quantmon.toml: config is ignored: it can be set only in the environment"),
        ("name = 'x'", "name is ignored: it can be set only in a section"),
        ("models = 1", "quantmon.toml: models is 1 and is ignored; write sections"),
        ("models.x = 1", 'quantmon.toml: models."x" is 1 and is ignored; write a section'),
        ("[models.'a*']\nwarmup = -1", 'quantmon.toml: models."a*".warmup: -1 is not accepted'),
        ("[models.x]\nqueue_size = 1", 'models."x".queue_size is ignored: it holds for the whole process'),
        ("[models.x]\nwarmpu = 1", 'models."x".warmpu is ignored: no such setting; did you mean warmup?'),
    ],
)
def test_a_mistake_in_the_file_leaves_the_rest(toml: str, said: str, load: Load, warnings: Warnings) -> None:
    """One warning says where it is and what is accepted; the default and the other settings hold."""
    for _ in range(2):
        found = load("max_models = 3\n" + toml)
        assert found.max_models == 3
        assert found.for_model("x") == Settings().for_model("x")
    assert [said in message for message in warnings()] == [True]


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        (b"warmup = 1\nspans = all\n", "is not valid TOML: Invalid value (at line 2, column 9)"),
        (b"warmup = 1\nspans = 'all", "(at line 2, column 13)"),
        (b"warmup = 1\nwarmup = 2\n", "at line 2"),
        (b"# \xe4\xf6\nwarmup = 1", "is not UTF-8 text (at line 1, column 3)"),
        (b"warmup = 1\n# \xc3\xa4\xff", "is not UTF-8 text (at line 2, column 4)"),
        (b"warmup = " + b"9" * 5000, "is not valid TOML"),
        # Too deep for some parsers, unfinished to others.
        (b"x = " + b"[" * 100_000, "quantmon.toml is n"),
        (b"#" * (1024 * 1024 + 1), "is larger than 1048576 bytes"),
    ],
    ids=["value", "end", "twice", "latin-1", "byte", "number", "nested", "large"],
)
def test_a_broken_file_is_said_with_its_place(toml: bytes, said: str, load: Load, warnings: Warnings) -> None:
    """A file that is no TOML takes nothing with it but itself, and the warning says where to look."""
    assert load(toml, QUANTMON_MAX_MODELS="3") == Settings(
        max_models=3, config=load("", QUANTMON_MAX_MODELS="3").config
    )
    assert [said in message for message in warnings()] == [True]


def test_a_variable_that_is_no_text_can_be_logged(warnings: Warnings) -> None:
    """Bytes that are no UTF-8 reach Python as surrogates, which a log file's handler could not write."""
    load_settings({"QUANTMON_\udcff": "1", "QUANTMON_CONFIG": "\udcff"})
    assert len("".join(warnings()).encode()) > 0
    assert len(warnings()) == 2


def test_a_bad_value_leaves_the_next_lower_source(load: Load, warnings: Warnings) -> None:
    """A mistyped flag falls back to the variable, a mistyped variable to the file."""
    found = load("warmup = 4", QUANTMON_WARMUP="5", OTEL_PYTHON_QUANTMON_WARMUP="x", QUANTMON_SPANS="x")
    assert (found.warmup, found.spans) == (5, "auto")
    assert load("warmup = 4", QUANTMON_WARMUP="x").warmup == 4
    assert len(warnings()) == 3


def test_a_byte_order_mark_and_windows_lines_are_read(load: Load, warnings: Warnings) -> None:
    """What an editor on Windows writes is no mistake."""
    assert load(b"\xef\xbb\xbfwarmup = 1\r\nspans = 'all'\r\n").warmup == 1
    assert warnings() == []


_names = st.sampled_from([setting.name.upper() for setting in TABLE] + ["TIMEOT", ""]) | st.text(max_size=5)
_texts = st.text(max_size=20) | st.sampled_from(["1", "1s", "none", "a=b", "true", "64MiB", "\ud800"])


@given(st.dictionaries(st.builds(str.__add__, st.sampled_from([PREFIX, OTEL_PREFIX]), _names), _texts))
def test_no_environment_raises(environ: dict[str, str]) -> None:
    """Whatever the variables hold, settings come out of it."""
    loading._said.clear()
    assert isinstance(load_settings(environ), Settings)


_keys = st.sampled_from(
    [setting.name for setting in TABLE] + ["models", "x", "'*'", '"a\\n"', "models.x.timeout"]
)
_toml_values = st.sampled_from(
    ["1", "0.5", "'1s'", "nan", "inf", "true", "{}", "{a='b'}", "[]", "1979-05-27", "'''"]
)
_lines = st.builds("{} = {}\n".format, _keys, _toml_values)
_heads = st.builds("[{}]\n".format, st.sampled_from(["models", "models.x", "models.'a*'", "x", "reference"]))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(_lines | _heads, max_size=8).map("".join) | st.text() | st.binary(max_size=50))
def test_no_file_raises(toml: str | bytes) -> None:
    """Whatever the file holds, settings come out of it, and each model's too."""
    loading._said.clear()
    with TemporaryDirectory() as directory:
        path = Path(directory, "quantmon.toml")
        path.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
        load_settings({"QUANTMON_CONFIG": str(path)}).for_model("x")


def test_variables_of_the_projects_own_tests_are_no_settings(caplog):
    """QUANTMON_TEST_CACHE and its like are inherited by whatever the tests start, and not warned of."""
    with caplog.at_level("WARNING", "otel_quantmon"):
        load_settings({"QUANTMON_TEST_CACHE": "/tmp"})
    assert not caplog.records
