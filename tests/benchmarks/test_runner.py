"""The runner on entries of a temporary folder: records, tables, exit status, and what goes wrong on purpose."""

import doctest
import gc
import json

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import discovery, environment, report, timing
from benchmarks.discovery import discover, select
from benchmarks.entry import Comparison, Study
from benchmarks.records import SCHEMA, load_records
from benchmarks.report import natural, render
from benchmarks.settings import Profile

HEADER = '''
"""Synthetic entries."""
import torch
from benchmarks import *
CASE = FieldCase(2, 1, (8, 8))
'''
GOOD = """
GOOD = Comparison(
    name="layers/sine/8x8", ours=lambda case: torch.sin, peer=lambda case: torch.sin, peer_name="same", case=CASE,
    measure=(Forward(), ForwardBackward()), accuracy=AgainstFloat64(1e-5), target=0.001,
)
"""
MANY = """
MANY = [Comparison(name=f"layers/cosine/{n}", ours=lambda case: torch.cos, case=CASE) for n in (16, 8, 128)]
"""
WRONG = """
WRONG = Comparison(
    name="layers/wrong/8x8", ours=lambda case: lambda u: torch.sin(u) * (1 if u.dtype == torch.float64 else 1.1),
    case=CASE, accuracy=AgainstFloat64(1e-5),
)
"""
MISSING = """
def missing(case):
    import a_peer_that_nobody_has
MISSING = Comparison(
    name="layers/lonely/8x8", ours=lambda case: torch.sin, peer=missing, peer_requires="a-peer>=2", case=CASE,
    accuracy=AgainstFloat64(1e-5),
)
"""
BROKEN_PEER = """
def broken(u):
    raise RuntimeError("half is not implemented")
BROKEN_PEER = Comparison(
    name="layers/broken/8x8", ours=lambda case: torch.sin, peer=lambda case: broken, case=CASE,
    accuracy=AgainstFloat64(1e-5),
)
"""
RAISES = """
RAISES = Comparison(name="layers/raises/8x8", ours=lambda case: torch.nn.Linear(3, 3), case=CASE)
"""
STUDY = """
def sweep(size, setting):
    for n in size:
        yield {"points": n, "error": 1.0 / n}
SWEEP = Study(
    name="models/sweep", run=sweep, columns=("points", "error"), quick=(2, 4), full=(2, 4, 8), caption="Halves.",
)
CLAIM = Study(
    name="models/claim", run=sweep, columns=("points", "error"), quick=(2,),
    check=lambda rows: ["the error exceeds 0.1"] if rows[-1]["error"] > 0.1 else [],
)
def stops(size, setting):
    yield {"points": 1, "error": float("nan")}
    raise RuntimeError("diverged")
STOPS = Study(name="models/stops", run=stops, columns=("points", "error"), quick=1)
"""


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """Ten milliseconds per measurement are enough to see that everything is in its place."""
    profile = Profile("quick", 0.01, 3, 5, warm_up_seconds=0.0, sample_seconds=1e-4)
    monkeypatch.setitem(command.PROFILES, "quick", profile)
    gc.freeze()  # the runner collects garbage before each measurement; what pytest holds need not be looked at
    yield
    gc.unfreeze()


@pytest.fixture
def bench(tmp_path):
    """Runs the command line on the given sources; gives its exit status and the records by name."""

    def run(*sources, arguments=()):
        folder = tmp_path / "entries"
        folder.mkdir(exist_ok=True)
        for number, source in enumerate(sources):
            (folder / f"file{number}.py").write_text(HEADER + source)
        out = tmp_path / "out"
        status = command.main(["--entries", str(folder), "--out", str(out), *arguments])
        return status, {record.name: record for record in load_records(out)} if out.exists() else {}

    return run


def test_a_comparison_leaves_times_errors_memory_and_order(bench, tmp_path):
    status, records = bench(GOOD)
    assert status == 0
    record = records["layers/sine/8x8"]
    assert (record.status, record.kind) == ("ok", "comparison")
    forward, backward = record.rows
    assert (forward["measure"], backward["measure"]) == ("forward", "forward + backward")
    for row in record.rows:
        assert row["accurate"] is True
        assert 3 <= len(row["order"]) / 2 <= 5
        assert row["order"] == "AB" * (len(row["order"]) // 2)
        for side in (row["ours"], row["peer"]):
            assert 0 < side["seconds"]["lower_quartile"] <= side["seconds"]["median"]
            assert 0 < side["error"] < 1e-6
        assert 0 < row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    # Two identical subjects: the same errors.
    assert forward["ours"]["error"] == forward["peer"]["error"]


def test_the_json_says_where_the_numbers_come_from(bench, tmp_path):
    bench(GOOD, arguments=["--seed", "3"])
    content = json.loads((tmp_path / "out" / "layers" / "sine" / "8x8.json").read_text())
    assert content["schema"] == SCHEMA
    assert content["setting"]["seed"] == 3
    assert content["setting"]["profile"]["name"] == "quick"
    assert content["config"]["case"] == {
        "type": "FieldCase", "batch": 2, "channels": 1, "shape": [8, 8], "dtype": "torch.float32",
    }  # fmt: skip
    assert content["config"]["accuracy"] == {"type": "AgainstFloat64", "tolerance": 1e-5}
    environment = content["environment"]
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["threads"] == torch.get_num_threads()
    assert {"python", "cpu", "cores", "device", "commit", "dirty"} <= set(environment)
    assert "0x" not in json.dumps(content["config"])  # no addresses: equal entries give equal configurations


def test_inaccurate_result_fails_the_run_and_is_marked(bench, tmp_path, capsys):
    status, records = bench(GOOD, WRONG)
    assert status == 1
    assert records["layers/wrong/8x8"].status == "failed"
    assert records["layers/sine/8x8"].status == "ok"
    (line,) = [text for text in (tmp_path / "out/README.md").read_text().splitlines() if text.startswith("| 8x8 | ")
               and "✗" in text]  # fmt: skip
    assert "1.0e-01 ✗" in line
    assert "exceeds 1.0e-05" in capsys.readouterr().err


def test_missing_peer_is_no_error(bench, tmp_path):
    status, records = bench(MISSING)
    assert status == 0
    (row,) = records["layers/lonely/8x8"].rows
    assert row["peer"] is None
    assert row["ratio"] is None
    assert set(row["order"]) == {"A"}
    assert row["accurate"] is True
    assert "peer missing: pip install 'a-peer>=2'" in (tmp_path / "out/README.md").read_text()


def test_peer_that_fails_does_not_take_ours_along(bench):
    status, records = bench(BROKEN_PEER)
    assert status == 0
    (row,) = records["layers/broken/8x8"].rows
    assert row["peer"] is None
    assert "half is not implemented" in row["note"]


def test_an_entry_that_raises_is_reported_and_the_others_run(bench, tmp_path):
    status, records = bench(RAISES, GOOD)
    assert status == 1
    assert records["layers/raises/8x8"].status == "error"
    assert "RuntimeError" in records["layers/raises/8x8"].message
    assert records["layers/sine/8x8"].status == "ok"
    assert "`layers/raises/8x8` error" in (tmp_path / "out/README.md").read_text()


def test_a_file_that_does_not_import_is_reported_and_the_others_run(bench, capsys):
    status, records = bench("import nothing_of_this_name", GOOD)
    assert status == 1
    assert list(records) == ["layers/sine/8x8"]
    assert "file0.py does not import" in capsys.readouterr().err


def test_studies_fill_their_table_and_keep_rows_before_a_failure(bench, tmp_path):
    status, records = bench(STUDY)
    assert status == 1
    assert records["models/sweep"].status == "ok"
    assert records["models/sweep"].rows == [{"points": 2, "error": 0.5}, {"points": 4, "error": 0.25}]
    assert (records["models/claim"].status, records["models/claim"].message) == ("failed", "the error exceeds 0.1")
    assert records["models/stops"].status == "error"
    assert records["models/stops"].rows == [{"points": 1, "error": "nan"}]
    text = (tmp_path / "out/README.md").read_text()
    assert "| 4 | 0.25 |" in text
    assert "Halves." in text


def test_a_row_with_other_columns_is_refused(bench):
    _, records = bench(STUDY.replace('"error": 1.0 / n', '"wrong": 1.0'))
    assert "expected a row with columns ['points', 'error']" in records["models/sweep"].message


def test_profiles_choose_sizes_and_entries(bench, capsys, tmp_path):
    bench(STUDY, MANY.replace("case=CASE", "case=CASE, quick=False"), arguments=["--list"])
    assert capsys.readouterr().out.split() == ["models/claim", "models/stops", "models/sweep"]
    command.main(["--entries", str(tmp_path / "entries"), "--list", "--profile", "full"])
    assert "layers/cosine/16" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], ["layers/cosine/128", "layers/cosine/16", "layers/cosine/8", "layers/sine/8x8"]),
        (["sine/8x"], ["layers/sine/8x8"]),
        (["layers/*/8"], ["layers/cosine/8"]),
        (["/16", "/128"], ["layers/cosine/128", "layers/cosine/16"]),
        (["nothing"], []),
    ],
)
def test_patterns(bench, capsys, patterns, expected):
    arguments = [word for pattern in patterns for word in ("--run", pattern)]
    bench(GOOD, MANY, arguments=["--list", *arguments])
    assert capsys.readouterr().out.split() == expected


def test_a_pattern_that_matches_nothing_is_said(bench, capsys):
    for others in ([], ["--run", "sine"]):
        assert bench(GOOD, arguments=[*others, "--run", "nothing"]) == (1, {})
        assert "expected --run nothing to match" in capsys.readouterr().err


def test_an_entry_of_the_other_profile_is_named(bench, capsys):
    assert bench(MANY.replace("case=CASE", "case=CASE, quick=False"), arguments=["--run", "cosine/16"]) == (1, {})
    assert "only layers/cosine/16 of the other one; choose it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--device", "abacus"], "expected a device of this machine, got 'abacus'"),
        (["--threads", "-2"], "expected a positive number, got '-2'"),
        (["--entries", "no/such/folder"], "expected a folder, got no/such/folder"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments, said, capsys):
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert said in capsys.readouterr().err


def test_a_folder_that_cannot_take_the_results_is_found_before_the_first_entry(bench, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "run", lambda *_: pytest.fail("an entry ran"))
    (tmp_path / "file").touch()
    assert bench(GOOD, arguments=["--out", str(tmp_path / "file")])[0] == 1
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "one.json").write_text('{"schema": "neural')
    assert bench(GOOD, arguments=["--out", str(tmp_path / "cut")])[0] == 1
    assert "expected JSON in one.json" in capsys.readouterr().err


def test_a_report_of_nothing_says_so(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "missing"):
        assert command.main(["--report", "--out", str(folder)]) == 1
        assert "expected results, got none" in capsys.readouterr().err


def test_an_interrupted_run_keeps_and_reports_what_it_has(bench, tmp_path, capsys, monkeypatch):
    run = command.run

    def until_the_third(entry, setting):
        if entry.name == "layers/cosine/8":
            raise KeyboardInterrupt
        return run(entry, setting)

    monkeypatch.setattr(command, "run", until_the_third)
    status, records = bench(GOOD, MANY)
    assert (status, set(records)) == (130, {"layers/cosine/128", "layers/cosine/16"})
    assert "interrupted; 2 of 4 entries" in capsys.readouterr().err
    assert "128" in (tmp_path / "out" / "README.md").read_text()


def test_a_later_run_replaces_its_own_records_and_keeps_the_others(bench, tmp_path, capsys):
    bench(GOOD, MANY)
    _, records = bench(GOOD, MANY, arguments=["--run", "cosine/16", "--seed", "9"])
    assert len(records) == 4
    assert {name for name, record in records.items() if record.setting["seed"] == 9} == {"layers/cosine/16"}
    before = (tmp_path / "out/README.md").read_text()
    capsys.readouterr()
    assert command.main(["--report", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.strip() == before.strip()
    assert not list((tmp_path / "out").rglob("*.tmp-*"))


def test_the_report_of_a_folder_leaves_out_the_records_of_a_folder_inside(bench, tmp_path, capsys):
    bench(GOOD)
    _, records = bench(MANY, arguments=["--out", str(tmp_path / "out" / "latest")])
    assert set(records) == {"layers/sine/8x8"}
    assert len(load_records(tmp_path / "out" / "latest")) == 3
    capsys.readouterr()
    assert command.main(["--report", "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert "sine" in text
    assert "cosine" not in text


def test_tables_are_well_formed_and_sorted_by_size(bench, tmp_path):
    _, records = bench(GOOD, MANY)
    text = render(list(records.values()))
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 2
    for block in blocks:
        assert len({line.count(" | ") for line in block}) == 1
    assert [line.split(" | ")[0] for line in blocks[0][2:]] == ["| 8", "| 16", "| 128"]
    assert "promised 0.001" in text
    assert "promised 0.001: missed" not in text
    assert "Peer: same." in text
    assert "(same)" not in text
    assert "missed" in render(list(bench(GOOD.replace("target=0.001", "target=1e9"))[1].values()))


def test_several_peers_in_a_table_are_named_in_their_cells(bench):
    other = GOOD.replace("GOOD =", "OTHER =").replace("sine/8x8", "sine/8x8-other").replace('"same"', '"other"')
    text = render(list(bench(GOOD, other)[1].values()))
    assert " (same) | " in text
    assert " (other) | " in text


def test_natural_order():
    names = ["n128", "n64", "n1024x2", "n1024x10", "m7"]
    assert sorted(names, key=natural) == ["m7", "n64", "n128", "n1024x2", "n1024x10"]


def test_the_random_state_of_the_caller_is_left_alone(bench):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    bench(GOOD)
    assert torch.equal(torch.rand(3), expected)


def test_two_entries_of_one_name_are_refused(bench):
    with pytest.raises(ValueError, match="expected unique names, got 'layers/sine/8x8' twice"):
        bench(GOOD, GOOD)


@pytest.mark.parametrize("module", [discovery, environment, report, timing], ids=lambda module: module.__name__)
def test_examples_run(module):
    results = doctest.testmod(module)
    assert results.attempted > 0
    assert results.failed == 0


class TestShippedEntries:
    found = discover()

    def test_every_file_imports(self):
        assert self.found.broken == {}

    def test_every_entry_says_what_it_is(self):
        assert self.found.entries
        for entry in select(self.found.entries.values(), []):
            if isinstance(entry, Comparison):
                assert entry.accuracy is not None, f"{entry.name}: no time stands without an error beside it"
                assert entry.peer is None or entry.peer_name != "peer", f"{entry.name}: name the peer"
            if isinstance(entry, Study):
                assert entry.caption, f"{entry.name}: a table needs a caption"
