"""Skipped rows: dropped by label or skipped as invalid, counted and reported; and files that change."""

import json

import pytest

from afqmc.config import compose
from afqmc.data.config import DatasetConfig, OnBadRow
from afqmc.data.labels import code_points, look_alikes, unknown_label
from afqmc.data.loading import PairStream, load_dataset
from afqmc.data.parsing import read_pairs
from afqmc.data.quality import analyze, summary_lines
from afqmc.data.skipped_rows import ReadReport
from afqmc.data.sources import DataFile
from afqmc.diagnostics.checks import Checks
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import run_experiment
from afqmc.utils.errors import InputError


def rows(count, labels=("0", "1")):
    return [{"sentence1": f"a{n}", "sentence2": f"b{n}", "label": labels[n % len(labels)]} for n in range(count)]


def jsonl(result):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in result)


@pytest.fixture
def dataset(tmp_path):
    """Return a config for files with the given contents; dev has four valid pairs by default."""

    def config(train, dev=None, test=None, **settings):
        for split, content in {"train": train, "dev": dev or jsonl(rows(4)), "test": test}.items():
            if content is not None:
                (tmp_path / f"{split}.jsonl").write_text(content, encoding="utf-8")
                settings[f"{split}_file"] = f"{split}.jsonl"
        return DatasetConfig(path=str(tmp_path), **settings)

    return config


def train_sentences(data):
    chunks = data.train.chunks(3) if isinstance(data.train, PairStream) else [data.train]
    return [sentence for chunk in chunks for sentence in chunk.sentence1]


@pytest.mark.parametrize("streaming", [False, True])
def test_dropped_rows(dataset, streaming):
    """Rows with a label in drop_labels are dropped and counted."""
    train = jsonl([*rows(6, ("no", "-", "yes")), {"label": "-"}])  # the last row has no sentences either
    data = load_dataset(dataset(train, jsonl(rows(3, ("-", "no"))), drop_labels=["-", "maybe"], streaming=streaming))
    assert data.labels == ("no", "yes")
    assert train_sentences(data) == ["a0", "a2", "a3", "a5"]
    assert data.left_out() == {"train": {"dropped": {"-": 3}}, "dev": {"dropped": {"-": 2}}}
    facts = analyze(data)
    assert "data: train: 3 of 7 rows dropped by dataset.drop_labels ('-' 3)" in summary_lines(data, facts)
    assert "dataset.drop_labels: no row of any split is labelled 'maybe'" in facts.suspicions


def test_dropped_label_of_another_type(dataset):
    """A dropped label may have another type than the other labels."""
    assert load_dataset(dataset(jsonl(rows(6, (0, "-", 1))), drop_labels=["-"])).labels == ("0", "1")


def test_ids_count_dropped_rows(dataset):
    """Row numbers used as ids count the dropped rows."""
    train = "{\n" + jsonl([{"sentence1": " "}, *rows(4, ("-", "0", "1"))])
    data = load_dataset(dataset(train, drop_labels=["-"], on_bad_row=OnBadRow.skip))
    assert (data.train.ids, data.train.lines) == ([3, 4], [4, 5])


def test_all_rows_dropped(dataset):
    """The error for a file whose rows are all dropped names the cause."""
    with pytest.raises(InputError, match=r"dev.jsonl: holds no pairs \(4 of 4 rows dropped by dataset.drop_labels"):
        load_dataset(dataset(jsonl(rows(4)), jsonl(rows(4, ("-",))), drop_labels=["-"]))


def test_folds_without_dropped_rows(dataset):
    """Folds are made from the rows that remain."""
    data = load_dataset(dataset(jsonl(rows(30, ("0", "1", "-"))), drop_labels=["-"], num_folds=2, fold=0))
    assert len(data.train) + len(data.dev) == 20
    assert data.left_out() == {"train": {"dropped": {"-": 10}}}


BAD = '{"sentence1": "a", "sentence2": "", "label": "0"}\n{\n' + jsonl(rows(1, ("2",))) + '{"sentence1": "a"}\n'


@pytest.mark.parametrize("streaming", [False, True])
def test_skipped_rows(dataset, streaming):
    """With on_bad_row=skip, invalid rows are skipped, counted and listed."""
    config = dataset(BAD + jsonl(rows(8)), labels=["0", "1"], on_bad_row=OnBadRow.skip, streaming=streaming)
    data = load_dataset(config)
    assert train_sentences(data) == [f"a{n}" for n in range(8)]
    result = data.left_out()["train"]
    assert (result["skipped"], [reason.split(": ")[0][-13:] for reason in result["first_skipped"]]) == (
        4,
        [f"train.jsonl:{line}" for line in (1, 2, 3, 4)],
    )
    (warning,) = analyze(data).suspicions
    assert "train: 4 of 12 rows are invalid and skipped" in warning
    assert "train.jsonl:3: label '2' is not one of: 0, 1" in warning
    config.on_bad_row = OnBadRow.fail
    with pytest.raises(InputError, match="train.jsonl:1: 'sentence2' is empty"):
        load_dataset(config)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("bad", "good", "limit"), [(11, 1000, None), (11, 1000, 500), (4, 3, None), (12, 1100, None), (30, 2400, None)]
)
def test_too_many_invalid_rows(dataset, bad, good, limit, streaming):
    """A file with many invalid rows is rejected."""
    train = "{\n" * bad + jsonl(rows(good))
    config = dataset(train, on_bad_row=OnBadRow.skip, max_train_samples=limit, streaming=streaming)
    with pytest.raises(InputError, match=rf"train.jsonl: {bad} of \d+ rows are invalid; .* or 1% of a file, and never"):
        load_dataset(config)


def test_one_percent_may_be_invalid(dataset):
    """One percent of the rows may be invalid."""
    data = load_dataset(dataset("{\n" * 12 + jsonl(rows(1200)), on_bad_row=OnBadRow.skip))
    assert (len(data.train), data.train.report.skipped, len(data.train.report.reasons)) == (1200, 12, 5)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "a,b,c\n" + "a,b,1\n" * 40, "x.csv:1: the header has a, b, c"),
        (
            "x.csv",
            "sentence1,sentence2,label\n" + "a,b,1\n" * 40 + '"a,b,1\n',
            "x.csv:42: a quotation mark opens a cell here and is not closed",
        ),
        ("x.csv", b"PK\x03\x04", "x.csv:1: is a zip"),
    ],
)
def test_file_errors_are_not_skipped(tmp_path, name, content, message):
    """Errors that concern the whole file are not skipped."""
    path, config = tmp_path / name, DatasetConfig(on_bad_row=OnBadRow.skip)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=message):
        list(read_pairs(DataFile.on_disk(path, config), config, labelled=True))


def test_prediction_needs_every_row(tmp_path):
    """A prediction does not skip invalid rows."""
    path = tmp_path / "x.jsonl"
    config = DatasetConfig(on_bad_row=OnBadRow.skip, drop_labels=["-"])
    file = DataFile.on_disk(path, config) if path.touch() is None else None
    path.write_text(jsonl(rows(3, ("-", "0"))))
    assert len(list(read_pairs(file, config, labelled=False))) == 3
    path.write_text(BAD)
    with pytest.raises(InputError, match=r"x.jsonl:1: 'sentence2' is empty; predictions need every row"):
        list(read_pairs(file, config, labelled=False))


@pytest.mark.parametrize("value", [-1, "-1"])
def test_placeholder_labels(dataset, value):
    """A test file with the label -1 in every row is unlabelled."""
    data = load_dataset(dataset(jsonl(rows(4)), test=jsonl(rows(3, (value,)))))
    assert (data.test.labels, len(data.test)) == (None, 3)
    assert any("test: unlabelled: every label is -1" in line for line in summary_lines(data, analyze(data)))


@pytest.mark.parametrize(
    ("dropped", "labels", "names"),
    [(["-1"], (-1,), "-1"), (["-1"], ("-1",), "-1"), (["-", "?"], ("-",), "-"), (["-"], ("-", "-1"), "- or -1")],
)
def test_only_dropped_labels(dataset, dropped, labels, names):
    """A test file that has only dropped labels is unlabelled."""
    data = load_dataset(dataset(jsonl(rows(4)), test=jsonl(rows(3, labels)), drop_labels=dropped))
    assert (data.test.labels, len(data.test)) == (None, 3)
    assert any(f"test: unlabelled: every label is {names};" in line for line in summary_lines(data, analyze(data)))
    unknown = [text for text in analyze(data).suspicions if "no row of any split" in text]
    assert [text.split(": ")[1] for text in unknown] == ["no row of any split is labelled '?'"] * (len(dropped) - 1)


def test_dropped_rows_of_labelled_test(dataset):
    """In a labelled test file, rows with dropped labels are dropped."""
    data = load_dataset(dataset(jsonl(rows(4)), test=jsonl(rows(4, ("-1", "1"))), drop_labels=["-1"]))
    assert data.test.labels == [1, 1]


def test_minus_one_as_class(dataset):
    """-1 is a class if train has it."""
    data = load_dataset(dataset(jsonl(rows(4, ("-1", "1"))), jsonl(rows(2, ("-1", "1"))), jsonl(rows(3, ("-1",)))))
    assert data.test.labels == [0, 0, 0]
    assert any("label '-1' is a class, with 2 training pairs" in text for text in analyze(data).suspicions)


@pytest.mark.parametrize("labels", [("-1", "1"), ("1", "-1")])
def test_some_placeholder_labels(dataset, labels):
    """A test file where only some labels are -1 is rejected."""
    with pytest.raises(InputError, match=r"test.jsonl:2: .*-1 means no label only if every row has it"):
        load_dataset(dataset(jsonl(rows(4)), test=jsonl(rows(3, labels))))


def test_placeholder_in_dev(dataset):
    """The error for -1 in dev explains its meaning."""
    with pytest.raises(InputError, match="dev.jsonl:1: label '-1' is not one of: 0, 1 .*means no label"):
        load_dataset(dataset(jsonl(rows(4)), jsonl(rows(3, ("-1",)))))


def test_command_line_keys():
    """drop_labels and on_bad_row are set on the command line."""
    result = compose(["dataset=files", "dataset.drop_labels=[-,x]", "dataset.on_bad_row=skip"]).dataset
    assert (result.drop_labels, result.on_bad_row) == (["-", "x"], OnBadRow.skip)
    with pytest.raises(InputError, match="dataset.on_bad_row=ignore: must be one of fail, skip"):
        compose(["dataset.on_bad_row=ignore"])


def test_doctor_reports_skipped_rows(dataset, tmp_path):
    """The doctor reports the dropped and skipped rows."""
    dataset("{\n" + jsonl(rows(6, ("0", "1", "-"))))
    files = [f"dataset.{split}_file={tmp_path}/{split}.jsonl" for split in ("train", "dev")]
    config = compose(
        ["dataset=files", "model=mini", *files, "dataset.drop_labels=[-]", "dataset.on_bad_row=skip", "tracker=none"]
    )
    result = [(finding.verdict.value, finding.text) for finding in Checks(config).check_data()]
    assert ("ok", "train: 2 of 7 rows dropped by dataset.drop_labels ('-' 2)") in result
    assert any(verdict == "warn" and "1 of 7 rows are invalid and skipped" in text for verdict, text in result)
    assert "fail" not in dict(result)


# labels that look alike


@pytest.mark.parametrize(
    "names",
    [
        ("1", "1\u200b"), ("1", "１"), ("1", "①"), ("1", "1.0"), ("1", "01"), ("a b", "a\u00a0b"), ("é", "e\u0301"),
        ("yes", "Yes"), ("yes", "YES "), ("yes", "yes\ufeff"), ("same", "sаme"), ("TOP", "ΤΟΡ"), ("0", "O"),
        ("-1", "−1"), ("not-same", "not_same"), ("是", "是\u200d"), ("是\ufe0f", "是"), ("it’s", "it's"),
        ("straße", "STRASSE"), ("不同", "不 同"),
        ("1", "I"), ("1", "|"), ("0", "〇"), ("1", '"1"'), ("是", "“是”"), ("w", "ԝ"), ("C", "Ϲ"),
        ("M", "Μ"), ("MATCH", "ΜATCH"), ("N", "Ν"), ("Y", "Υ"), ("3", "З"), ("一", "—"),
    ],
)  # fmt: skip
def test_look_alikes(names):
    """Labels that look alike are recognised."""
    assert look_alikes(names) == [list(names)]


def test_different_labels():
    """Labels that look different are not reported."""
    different = ["0", "1", "-1", "10", "yes", "no", "相同", "不同", "不", "e", "f", "neutral", "entailment", "1e5", "-"]
    different += ["FAIL", "FALL", "II", "III", "二", '"', "''"]
    assert look_alikes(different) == []


def test_look_alikes_are_reported(dataset):
    """Labels that look alike are reported with their code points."""
    data = load_dataset(dataset(jsonl(rows(4, ("1", "1\u200b")))[:-1], jsonl(rows(2, ("1", "1\u200b")))))
    (warning,) = analyze(data).suspicions
    assert "'1' (U+0031), 2 training pairs and '1\\u200b' (U+0031 U+200B), 2 training pairs" in warning
    assert code_points("１") == "'１' (U+FF11)"


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("１", ["0", "1"], "it looks like one of them: '１' (U+FF11) here, '1' (U+0031) there"),
        ("no", ["false", "true"], 'YAML reads no without quotes as true or false: write labels: ["no", "yes"]'),
        ("010", ["7", "8"], 'YAML reads 010 without quotes as the number 8: write "010"'),
        ("12:30", ["750", "8"], 'YAML reads 12:30 without quotes as the number 750: write "12:30"'),
    ],
)
def test_unknown_label_hint(name, known, hint):
    """The error for an unknown label hints at the likely cause."""
    assert hint in unknown_label(name, known)


# a streamed file that changes


def changed(content, how):
    lines = content.splitlines(keepends=True)
    return {
        "grown": content + lines[0],
        "shrunk": "".join(lines[:-1]),
        "empty": "",
        "last": "".join(lines[:-1]) + lines[0],
        "first": lines[1] + "".join(lines[1:]),
        "label": content.replace('"label": "0"', '"label": "1"', 1),
        "new label": content.replace('"label": "0"', '"label": "2"', 1),
        "broken": content[:-10],
    }[how]


@pytest.mark.parametrize("size", [4, 20, 300, 1000])
@pytest.mark.parametrize("how", ["grown", "shrunk", "empty", "last", "first", "label", "new label", "broken"])
def test_streamed_file_changes(dataset, tmp_path, how, size):
    """A streamed file that changes is rejected by name."""
    content = jsonl(rows(600))
    data = load_dataset(dataset(content, streaming=True))
    for _ in range(2):
        assert sum(map(len, data.train.chunks(size))) == 600
    (tmp_path / "train.jsonl").write_text(changed(content, how))
    with pytest.raises(InputError, match="train.jsonl: has changed since the run first read it"):
        list(data.train.chunks(size))


def test_changed_pair_is_not_used(dataset, tmp_path):
    """A changed pair is detected before it is used."""
    content = jsonl(rows(600))
    data = load_dataset(dataset(content, streaming=True))
    (tmp_path / "train.jsonl").write_text(changed(content, "first"))
    with pytest.raises(InputError, match="has changed"):
        next(data.train.chunks(300))


def test_rows_past_limit_may_change(dataset, tmp_path):
    """Rows beyond max_train_samples may change."""
    content = jsonl(rows(60))
    data = load_dataset(dataset(content, streaming=True, max_train_samples=50))
    (tmp_path / "train.jsonl").write_text(changed(content, "grown"))
    assert sum(map(len, data.train.chunks(10))) == 50


def test_limit_counts_rows_read():
    """The limit for invalid rows refers to the rows that were read."""
    report = ReadReport("x", rows=4)
    for _ in range(2):
        report.skip("x:1: bad")
    report.reject_too_many()
    report.skip("x:3: bad")
    with pytest.raises(InputError, match="x: 3 of 4 rows are invalid"):
        report.reject_too_many()


APPEND = """
def schedule(step, total_steps):
    if step == 3:
        with open({path!r}, "a") as file:
            file.write({line!r})
    return 1.0
"""


@pytest.fixture
def own_run(dataset, tmp_path):
    """Train a tiny model on these files, into a directory of the given name."""
    dataset(jsonl(rows(24)))
    files = [f"dataset.{split}_file={tmp_path}/{split}.jsonl" for split in ("train", "dev")]
    tiny = [f"model.config_overrides.{name}={size}" for name, size in (("hidden_size", 24), ("intermediate_size", 24))]
    common = ["dataset=files", "model=mini", "tracker=none", "trainer.mixed_precision=no", "epochs=3", *files, *tiny]

    def run(name, *overrides, resume=False):
        run_dir = RunDir(tmp_path / name)
        run_experiment(compose([*common, *overrides]), run_dir, resume=resume)
        return run_dir

    return run


def test_streamed_file_grows(own_run, plug, tmp_path):
    """A run whose streamed file grows fails and names the file."""
    source = APPEND.format(path=str(tmp_path / "train.jsonl"), line=jsonl(rows(1)))
    with pytest.raises(InputError, match=r"train.jsonl: has changed .*: it had 24 pairs, and now has at least"):
        own_run(
            "run", "dataset.streaming=true", f"scheduler._target_={plug(source)}.schedule", "~scheduler.warmup_steps"
        )
    status = RunDir(tmp_path / "run").read_status()
    assert (status["status"], "train.jsonl: has changed" in status["error"]) == ("failed", True)
    assert not RunDir(tmp_path / "run").summary.exists()


@pytest.mark.parametrize("streaming", ["false", "true"])
@pytest.mark.parametrize("split", ["train", "dev"])
def test_no_resume_on_other_data(own_run, tmp_path, streaming, split):
    """A run is not resumed if its data has changed."""
    run_dir = own_run("run", f"dataset.streaming={streaming}", "epochs=1")
    with (tmp_path / f"{split}.jsonl").open("a") as file:
        file.write(jsonl(rows(1)))
    with pytest.raises(InputError, match="data or tokenizer are not those that the run started with"):
        own_run("run", f"dataset.streaming={streaming}", "epochs=2", resume=True)
    assert run_dir.summary.exists()


def test_summary_of_skipped_rows(own_run, dataset):
    """summary.json has the counts of dropped and skipped rows."""
    dataset("{\n" + jsonl(rows(24, ("0", "1", "-"))), test=jsonl(rows(3, (-1,))))
    run_dir = own_run("run", "dataset.drop_labels=[-]", "dataset.on_bad_row=skip", "trainer.max_steps=1")
    result = run_dir.read_summary()["left_out"]["train"]
    assert (result["dropped"], result["skipped"]) == ({"-": 8}, 1)
    assert "train.jsonl:1: broken JSON" in result["first_skipped"][0]
