"""A table of one's own: every column told and typed, every damage told with its place, nothing wrong in silence."""

from __future__ import annotations

import csv
import io
import shlex
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline import experiment
from pipeline.data import Dataset, reading, source, tables
from pipeline.errors import ConfigError, DataError, PipelineError
from pipeline.settings import DataSettings, compose
from tests.running import run_script
from tests.tables import leaves

REPOSITORY = Path(__file__).resolve().parents[2]
ROWS = 40
HERE = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rules(path: Path | str = "t.csv", **given: Any) -> DataSettings:
    return DataSettings(name="table", path=str(path), normalize="feature", limit=None, **given)


def people(rows: int = ROWS) -> pd.DataFrame:
    """A bit of everything that people keep in tables."""
    random = np.random.default_rng(2)
    frame = pd.DataFrame(
        {
            "id": np.arange(rows) + 7,
            "age": random.integers(18, 90, rows).astype(float),
            "pay": random.normal(3000, 500, rows).round(2),
            "job": random.choice(["nurse", "clerk", "cook"], rows),
            "married": random.choice(["yes", "no"], rows),
            "born": pd.date_range("1950-01-01", periods=rows, freq="97D").strftime("%Y-%m-%d"),
            "seen": pd.date_range("2024-01-01", periods=rows, freq="7h").strftime("%Y-%m-%dT%H:%M:%S"),
            "note": [f"came in on day {number} and left again" for number in range(rows)],
            "planet": "earth",
            "happy": random.choice(["a lot", "a bit", "no"], rows),
        }
    )
    frame["wage"] = frame["pay"]
    frame.loc[3, "age"] = np.nan
    frame.loc[5, "job"] = None
    return frame


def written(folder: Path, text: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8", newline="")
    return path


def load(path: Path | str, **given: Any) -> Dataset:
    return source("table")(rules(path, **given), 0)


def column(data: Dataset, name: str) -> np.ndarray:
    values: np.ndarray = data.inputs[:, data.feature_names.index(name)]
    return values


@pytest.fixture
def csv_file(tmp_path: Path) -> Path:
    people().to_csv(tmp_path / "people.csv", index=False)
    return tmp_path / "people.csv"


# ---- what is read


def test_every_column_is_typed_and_what_is_useless_is_dropped_aloud(csv_file: Path) -> None:
    data = load(csv_file, target="happy")
    kinds = {each.name: each.kind for each in data.columns}
    assert kinds == {
        "age": "numeric", "pay": "numeric", "job": "categorical", "married": "boolean", "born": "date",
        "seen": "datetime",
    }  # fmt: skip
    said = {line.split()[0]: line for line in data.summary.splitlines() if line.startswith("  ")}
    assert said.keys() == {*people().columns} - {"happy"}
    assert "counts the rows" in said["id"]
    assert "free text" in said["note"]
    assert "earth in every row" in said["planet"]
    assert "the same as pay" in said["wage"]
    assert "1 missing flagged" in said["age"]
    assert "3 categories" in said["job"]
    assert "multiclass (a bit, a lot, no), since it has 3 different texts" in data.summary
    assert (data.task, data.class_names) == ("multiclass", ("a bit", "a lot", "no"))


def test_values_are_those_of_the_file(csv_file: Path) -> None:
    frame, data = people(), load(csv_file, target="happy")
    np.testing.assert_array_equal(column(data, "age"), frame["age"])
    np.testing.assert_array_equal(column(data, "married"), frame["married"] == "yes")
    jobs = next(each for each in data.columns if each.name == "job").categories
    named = [jobs[int(code)] if np.isfinite(code) else None for code in column(data, "job")]
    assert named == [None if pd.isna(each) else each for each in frame["job"]]
    np.testing.assert_array_equal(column(data, "born"), np.array(frame["born"], "datetime64[D]").astype(float))
    np.testing.assert_allclose(column(data, "seen"), np.array(frame["seen"], "datetime64[s]").astype(float) / 86400)
    assert [data.class_names[number] for number in data.targets] == list(frame["happy"])


def in_sqlite(frame: pd.DataFrame, folder: Path) -> dict[str, Any]:
    with closing(sqlite3.connect(folder / "t.db")) as connection:
        frame.to_sql("people", connection, index=False)
    return {"path": f"sqlite:///{folder / 't.db'}", "query": "select * from people"}


FORMATS: dict[str, Callable[[pd.DataFrame, Path], dict[str, Any]]] = {
    "tsv": lambda frame, folder: {"path": _saved(folder / "t.tsv", lambda p: frame.to_csv(p, sep="\t", index=False))},
    "semicolons": lambda frame, folder: {
        "path": _saved(folder / "s.csv", lambda p: frame.to_csv(p, sep=";", decimal=",", index=False)),
        "delimiter": ";",
        "decimal": ",",
    },
    "utf-16": lambda frame, folder: {
        "path": _saved(folder / "u.csv", lambda p: frame.to_csv(p, encoding="utf-16", index=False)),
        "encoding": "utf-16",
    },
    "parquet": lambda frame, folder: {"path": _saved(folder / "t.parquet", frame.to_parquet)},
    "feather": lambda frame, folder: {"path": _saved(folder / "t.feather", frame.to_feather)},
    "json lines": lambda frame, folder: {
        "path": _saved(folder / "t.jsonl", lambda p: frame.to_json(p, orient="records", lines=True))
    },
    "query": in_sqlite,
}


def _saved(path: Path, save: Callable[[Path], object]) -> Path:
    save(path)
    return path


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_gives_the_same_table(csv_file: Path, tmp_path: Path, form: str) -> None:
    expected = load(csv_file, target="happy")
    data = load(**FORMATS[form](people(), tmp_path), target="happy")
    assert data.columns == expected.columns
    np.testing.assert_array_equal(data.inputs, expected.inputs)
    assert data.fingerprint == expected.fingerprint


def test_a_frame_gives_the_same_table_as_its_file(csv_file: Path) -> None:
    frame = people().set_index(np.arange(ROWS) * 3)
    frame["born"], frame["seen"] = pd.to_datetime(frame["born"]), pd.to_datetime(frame["seen"], utc=True)
    frame["job"], frame["married"] = frame["job"].astype("category"), frame["married"] == "yes"
    expected, data = load(csv_file, target="happy"), tables.from_frame(frame, rules(target="happy"))
    np.testing.assert_array_equal(data.inputs, expected.inputs)
    assert [each.kind for each in data.columns] == [each.kind for each in expected.columns]


def test_a_frame_of_a_module_is_named_by_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_people.py").write_text(
        "import pandas as pd\n"
        "frame = pd.DataFrame({'age': [20.5, 30, 41] * 9, 'city': list('bwk') * 9, 'likes': [0, 1, 1] * 9})\n"
        "def young(): return frame[frame['age'] < 35]\n"
        "nothing = None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))

    def asked(path: str) -> DataSettings:
        return compose(
            ["data=table", f"data.path={path}", "data.target=likes", "allow_targets=[of_people,of_peple]"]
        ).data

    assert len(tables.load(asked("of_people:frame"), 0)) == 27
    young = tables.load(asked("of_people:young"), 0)
    assert (len(young), young.name, young.origin) == (18, "young", "of_people:young")
    for path, told in {"of_people:nothing": "must be a pandas frame", "of_peple:frame": "no module of_peple"}.items():
        with pytest.raises(DataError, match=told):
            tables.load(asked(path), 0)
    with pytest.raises(ConfigError, match=r"allow_targets=\[of_people\]"):
        compose(["data=table", "data.path=of_people:frame", "data.target=likes"])


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["b", "a"] * 20, "binary"),
        ([0, 1] * 20, "binary"),
        ([True, False] * 20, "binary"),
        ([3, 5, 7, 7] * 10, "multiclass"),
        ([1.5, 2, 3, 4] * 10, "regression"),
        (list(range(40)), "regression"),
        ([f"{k % 5}k" for k in range(40)], "multiclass"),
    ],
)
def test_the_task_follows_the_target_unless_one_is_named(values: list[Any], task: str) -> None:
    frame = people().assign(y=values)
    data = tables.from_frame(frame, rules(target="y"))
    assert data.task == task
    assert f"Target y: {task}" in data.summary
    if all(type(each) is int for each in values):
        named = tables.from_frame(frame, rules(target="y", task="regression"))
        np.testing.assert_array_equal(named.targets, values)
        assert named.class_names == ()


def test_several_targets_are_labels() -> None:
    frame = people().assign(a=[0, 1] * 20, b=["yes", "no", "no", "no"] * 10)
    data = tables.from_frame(frame, rules(target=["a", "b"]))
    assert (data.task, data.class_names, data.classes) == ("multilabel", ("a", "b"), 0)
    np.testing.assert_array_equal(data.targets, np.stack([frame["a"], frame["b"] == "yes"], axis=1))
    assert not {"a", "b"} & {*data.feature_names}


def test_settings_decide_where_looks_deceive() -> None:
    wanted = {"id": "numeric", "age": "categorical", "planet": "categorical", "note": "drop"}
    data = tables.from_frame(people(), rules(target="happy", columns=wanted, drop=["pay"]))
    kinds = {each.name: each.kind for each in data.columns}
    assert (kinds["id"], kinds["age"], kinds["planet"]) == ("numeric", "categorical", "categorical")
    assert not {"pay", "note"} & kinds.keys()
    assert kinds["wage"] == "numeric"  # no longer a copy of what is learnt from


def test_rows_stand_in_their_time_and_groups_are_numbered() -> None:
    frame = people().sample(frac=1, random_state=1)
    data = tables.from_frame(frame, rules(target="happy", time="seen", group="married"))
    order = np.argsort(np.array(frame["seen"], "datetime64[s]"))
    np.testing.assert_array_equal(column(data, "pay"), frame["pay"].to_numpy()[order])
    assert data.times is not None
    assert (np.diff(data.times) >= 0).all()
    assert data.groups is not None
    np.testing.assert_array_equal(
        data.groups == data.groups[0], (frame["married"] == frame["married"].iloc[order[0]]).to_numpy()[order]
    )
    assert "married" not in data.feature_names


@pytest.mark.parametrize(("text", "days"), [("03/04/2021", 18720), ("2021-04-03", 18720), ("2021/4/3", 18720)])
def test_dates_are_read_in_the_order_that_is_said(text: str, days: int) -> None:
    frame = people().assign(d=text)
    frame.loc[0, "d"] = text.replace("2021", "2022")
    data = tables.from_frame(frame, rules(target="happy", day_first=True))
    assert column(data, "d")[1] == days


# ---- what is wrong, and told


def table(*lines: str) -> str:
    return "\n".join(lines) + "\n"


GOOD = [f"{k},{k % 7}.5,{'ab'[k % 2]}" for k in range(30)]
BAD_FILES = {
    "": ("is empty",),
    "\n\n": ("only blank lines",),
    "x,z,y\n": ("no rows",),
    table("x;z;y", *[line.replace(",", ";") for line in GOOD]): ("""'data.delimiter=";"'""", "3"),
    table("x\tz\ty", *[line.replace(",", "\t") for line in GOOD]): (r"""'data.delimiter="\t"'""", "3"),
    table("x,z,y", *[f"{k},1,{'oops' if k == 7 else k + 0.5}" for k in range(30)]): ("line 9", "29 of 30", "'oops'"),
    table("x,z,x", *GOOD): ("'x' 2 times", "columns 1, 3", "rename"),
    table("x,,y", *GOOD): ("column 2", "no name"),
    table("x,z,y", *GOOD[:4], "4,1.5", *GOOD[4:]): ("line 6", "2 fields", "has 3"),
    table("x,z,y", *GOOD[:4], "4,1.5,a,b", *GOOD[4:]): ("line 6", "4 fields", "quotes"),
    table("x,z,y", *GOOD[:9], '9,"1.5,a', *GOOD[9:]): ("line", "quotation mark"),
    table("x,z,y", *GOOD[:9], "9,high,a", *GOOD[9:]): ("line 11", "'z'", "'high'", "data.missing"),
    table("x,z,y", *GOOD[:9], "9,inf,a", *GOOD[9:]): ("line 11", "'z'", "infinite"),
    table("x,z,y", *GOOD[:9], "9,1.5,", *GOOD[9:]): ("line 11", "target 'y'", "no value"),
    table("x,z,y", *[line[:-1] + "a" for line in GOOD]): ("'a' in every row",),
    table("x,z,y", *[f"{k},,{'ab'[k % 2]}" for k in range(30)]): ("'z' has no value", "data.drop=[z]"),
    table("x,z,y", *[f"{k},1,text {k}" for k in range(30)]): ("30 different texts", "not classes"),
    table("a,x,y", *[f"7,7,{'ab'[k % 2]}" for k in range(30)]): ("no column is left", "a: constant"),
    table("x,z,y", *[f"{k},0{k % 9 + 1}/0{k % 8 + 1}/2024,{'ab'[k % 2]}" for k in range(30)]): ("day_first",),
    table("1,2,3", *GOOD): ("only numbers", "header"),
}


@pytest.mark.parametrize(("text", "words"), BAD_FILES.items(), ids=lambda each: " ".join(each)[:40])
def test_a_file_that_is_wrong_is_told_with_its_place(tmp_path: Path, text: str, words: tuple[str, ...]) -> None:
    path = written(tmp_path, text)
    with pytest.raises(DataError) as told:
        load(path, target="y")
    assert str(path) in str(told.value)
    assert not [word for word in words if word not in str(told.value)], str(told.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"target": "yy"}, ("no column 'yy'", "Did you mean 'y'", "x, z, y")),
        ({"target": "Y"}, ("no column 'Y'", "Did you mean 'y'")),
        ({}, ("data.target must name", "x, z, y")),
        ({"target": "y", "drop": ["w"]}, ("data.drop", "no column 'w'")),
        ({"target": "y", "columns": {"xx": "numeric"}}, ("data.columns", "Did you mean 'x'")),
        ({"target": "y", "columns": {"y": "drop"}, "drop": ["y"]}, ("cannot be the target",)),
        ({"target": "y", "task": "regression"}, ("line 2", "needs numbers", "'a'")),
        ({"target": "x", "task": "binary"}, ("2 classes", "30")),
        ({"target": ["x", "y"]}, ("line", "label", "'x'")),
        ({"target": "y", "columns": {"z": "boolean"}}, ("2 different values", "7")),
        ({"target": "x", "columns": {"y": "numeric"}}, ("line 2", "'y' holds numbers")),
        ({"target": "x", "columns": {"y": "date"}}, ("line 2", "'y' holds dates")),
        ({"target": "y", "encoding": "klingon"}, ("data.encoding", "klingon")),
        ({"target": "y", "encoding": "utf-16"}, ("not text in utf-16",)),
        ({"target": "x", "time": "y"}, ("data.time", "dates or numbers")),
    ],
)
def test_settings_that_do_not_fit_the_file_are_told(
    tmp_path: Path, given: dict[str, Any], words: tuple[str, ...]
) -> None:
    path = written(tmp_path, table("x,z,y", *GOOD))
    with pytest.raises(DataError) as told:
        load(path, **given)
    assert not [word for word in words if word not in str(told.value)], str(told.value)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.jsonl", b'{"x": 1}\n{"x": 2\n', ("line 2", "not JSON")),
        ("t.jsonl", b"[1, 2]\n", ("line 1", "must be an object")),
        ("t.jsonl", b'{"x": {"a": 1}, "y": 2}\n', ("line 1", "'x' holds dict")),
        ("t.jsonl", b'{"x": 1, "x": 2}\n', ("line 1", "twice")),
        ("t.jsonl", b"\n\n", ("only blank lines",)),
        ("t.parquet", b"PAR1 and nothing more", ("Parquet",)),
        ("t.feather", b"ARROW1 and nothing more", ("Feather",)),
        ("t.csv", b"x,y\n\xff\xfe,2\n", ("not text in utf-8", "data.encoding")),
        ("t.csv", b"x,y\n1,\x00\n", ("line 2", "NUL")),
        ("t.xlsx", b"PK", ("'.xlsx'", ".parquet")),
    ],
)
def test_other_formats_tell_their_damage(tmp_path: Path, name: str, content: bytes, words: tuple[str, ...]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as told:
        load(tmp_path / name, target="y")
    assert name in str(told.value)
    assert not [word for word in words if word.lower() not in str(told.value).lower()], str(told.value)


def test_a_cut_off_parquet_file_is_told(tmp_path: Path) -> None:
    people().to_parquet(tmp_path / "t.parquet")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged, cut off or no Parquet"):
        load(tmp_path / "t.parquet", target="happy")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"path": "sqlite:///nowhere.db", "query": "select 1"}, "no such SQLite file"),
        ({"query": None}, "needs data.query"),
        ({"query": "select * from nobody"}, "nobody"),
        ({"query": "select * from people where age < 0"}, "no rows"),
        ({"query": "select age, pay as age from people"}, "twice"),
        ({"path": "nosuch://me:secret@host/db", "query": "select 1"}, "cannot be answered"),
    ],
)
def test_a_query_that_fails_is_told_without_a_password(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as told:
        load(**{**in_sqlite(people(), tmp_path), **given}, target="happy")
    assert "secret" not in str(told.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path: Path) -> None:
    written(tmp_path, table("x,y", "1,2"), "people.csv")
    with pytest.raises(DataError, match=r"no such file .* Did you mean people\.csv"):
        load(tmp_path / "peple.csv", target="y")
    with pytest.raises(DataError, match="is a folder"):
        load(tmp_path, target="y")


@pytest.mark.parametrize("name", ["t.csv", "t.parquet", "t.jsonl"])
def test_a_file_larger_than_memory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    save = {"t.csv": "to_csv", "t.parquet": "to_parquet", "t.jsonl": "to_json"}[name]
    more = {"orient": "records", "lines": True} if name == "t.jsonl" else {}
    getattr(people(), save)(tmp_path / name, **more)
    monkeypatch.setattr(reading, "free_memory", lambda: 100)
    with pytest.raises(DataError, match="GiB of memory"):
        load(tmp_path / name, target="happy")


# ---- whatever comes


@HERE
@given(st.binary(max_size=300), st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.parquet", "t.feather"]))
def test_any_bytes_are_a_table_or_one_message(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    try:
        load(tmp_path / name, target="y")
    except PipelineError as error:
        told = str(error)
    else:
        return
    assert name in told or "data." in told


CELL = st.one_of(
    st.integers(-5, 5).map(str),
    st.floats(allow_nan=False).map(repr),
    st.sampled_from(
        [
            "",
            "?",
            "NA",
            "TRUE",
            "yes",
            "no",
            "true",
            "inf",
            "1e999",
            "0x1F",
            "1_000",
            "2024-02-30",
            "1/2/2024",
            "²",
            " a ",
        ]
    ),
    st.text(max_size=6),
)


@HERE
@given(st.lists(st.tuples(CELL, CELL, st.sampled_from(["a", "b"])), min_size=2, max_size=12))
def test_any_cells_are_kept_or_told(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    """Numbers are the numbers that Python reads, categories the texts of their cells, row by row."""
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL).writerows([("x", "z", "y"), *rows])
    path = tmp_path / "t.csv"
    path.write_text(buffer.getvalue(), encoding="utf-8", errors="surrogatepass", newline="")
    try:
        data = load(path, target="y")
    except PipelineError:
        return
    assert [data.class_names[number] for number in data.targets] == [row[2] for row in rows]
    for each in data.columns:
        cells = [row["xz".index(each.name)].strip() for row in rows]
        for cell, value in zip(cells, column(data, each.name), strict=True):
            if each.kind in ("numeric", "boolean") and np.isfinite(value):
                says = each.categories[int(value)] if each.kind == "boolean" else None
                assert (says is not None and cell.lower() == says) or float(cell) == pytest.approx(value)
            elif each.kind == "categorical" and np.isfinite(value):
                named = each.categories[int(value)]
                assert cell == named or float(cell) == float(named)
            elif not np.isfinite(value):
                assert cell in reading.MISSING


@HERE
@given(st.data())
def test_a_damaged_table_is_told_or_whole(tmp_path: Path, data: st.DataObject) -> None:
    """Of a file that lost or gained a piece, every line that is there is a row, or the reader says what is wrong."""
    text = table("x,z,y", *GOOD)
    start = data.draw(st.integers(0, len(text)))
    piece = data.draw(st.sampled_from(["", '"', ",", "\n", "\x00", "é", "a,b"]))
    damaged = text[:start] + piece + text[start + data.draw(st.integers(0, 30)) :]
    path = written(tmp_path, damaged)
    try:
        read = load(path, target="y")
    except PipelineError:
        return
    assert len(read) == len([line for line in damaged.splitlines() if line.strip()][1:])


@pytest.mark.slow
def test_bad_input_ends_with_exit_code_2_and_one_message(tmp_path: Path) -> None:
    path = written(tmp_path, table("x,z,y", *GOOD[:9], "9,high,a", *GOOD[9:]))
    done = train("data=table", f"data.path={path}", "data.target=y", "tracking=none")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("line 11") == 1


def train(*arguments: str) -> CompletedProcess[str]:
    return run_script(REPOSITORY / "scripts" / "train.py", *arguments)


@pytest.mark.slow
def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    """The first as it is typed, the others without a process of their own."""
    folder = leaves(tmp_path / "leaves", images=20)
    people(200).rename(columns={"married": "income"}).to_csv("people.csv", index=False)
    np.savez("scans.npz", x=np.random.default_rng(0).normal(size=(60, 4, 4)), y=np.arange(60) % 2)
    page = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
    asked = [shlex.split(line)[2:] for line in page.splitlines() if line.startswith("python scripts/train.py")]
    assert {each[0] for each in asked} == {"data=table", "data=arrays", "data=images"}
    small = ["trainer.max_epochs=1", "model.hidden=[8]", "export=none", "report=false"]
    done = train(*asked[0], *small, "tracking=none")
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "200 rows" in said[0]
    assert next(k for k, line in enumerate(said) if line.startswith("  age")) < next(
        k for k, line in enumerate(said) if line.startswith("accuracy")
    )
    for arguments in asked[1:]:
        outcome = experiment.run(compose([*arguments, *small, "engine=numpy"]))
        assert outcome.result.test["accuracy"] >= 0
    assert folder.name == "leaves"
