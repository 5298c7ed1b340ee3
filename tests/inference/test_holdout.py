"""``afqmc evaluate --holdout``: each use of the labels is in a ledger, whose edits and deletions are found."""

import json
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from afqmc import evaluate
from afqmc.cli import DONE, REFUSED, run_command
from afqmc.config import load, save
from afqmc.data.config import Source
from afqmc.data.loading import load_dataset
from afqmc.data.sample import sample_files
from afqmc.inference.predictor import Predictor
from afqmc.run_dir import RunDir
from afqmc.runner.experiment import data_digests
from afqmc.utils.errors import InputError
from afqmc.utils.hash_chain import append_entry, read_chain


@pytest.fixture
def holdout(tmp_path):
    """24 labelled pairs."""
    file = tmp_path / "holdout.jsonl"
    file.write_bytes(b"".join(sample_files()["train.json"].splitlines(keepends=True)[:24]))
    return file


def test_intervals_are_those_of_the_table(small_run, tmp_path, call):
    """All intervals are drawn by groups of pairs that share a sentence, and have the level of the use."""
    file, intervals = tmp_path / "holdout.jsonl", []
    file.write_bytes(b"".join(sample_files()["train.json"].splitlines(keepends=True)[:60] * 2))
    for use in (1, 2):
        _, out, error = call(small_run.path, "--holdout", file, "--hypothesis", "q", "--json")
        result = json.loads(out)
        assert result["interval_level"] == result["holdout"]["accuracy"]["level"] == 1 - 0.05 / use, error
        assert result["intervals"]["accuracy"] == result["holdout"]["accuracy"]["interval"]
        intervals.append(result["intervals"])
    for name in ("accuracy", "roc_auc", "loss"):
        (low, high), (lower, higher) = (each[name] for each in intervals)
        assert (lower < low, high < higher) == (True, True), name
    _, out, _ = call(small_run.path, "--holdout", file, "--hypothesis", "q")
    assert "(98.33% CI " in out
    assert "95% CI" not in out


@pytest.fixture
def call(monkeypatch, capsys):
    """Run ``afqmc evaluate`` in this process; return its exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["evaluate", *map(str, arguments)])
        code = run_command(evaluate.main)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def ledger_of(file):
    return file.with_name(f"{file.name}.ledger.jsonl")


def test_uses_are_counted(small_run, holdout, call):
    """A use has an entry before the labels are read, and one with the digest of the result; later uses list it."""
    code, out, error = call(small_run.path, "--holdout", holdout, "--hypothesis", "above 60%?")
    assert code == DONE, error
    assert "this is use number 1 of the holdout" in out
    assert "95.00% interval" in out
    code, out, _ = call(small_run.path, "--holdout", holdout, "--hypothesis", "again", "--json")
    result = json.loads(out)
    assert (code, result["holdout"]["use"], result["holdout"]["accuracy"]["level"]) == (DONE, 2, 0.975)
    assert [use["hypothesis"] for use in result["holdout"]["earlier"]] == ["above 60%?"]
    expected = Predictor.load(small_run.path)
    assert result["loss"] == expected.evaluate(expected.read_pairs(holdout, labelled=True)).metrics["loss"]
    _, out, _ = call(small_run.path, "--holdout", holdout, "--hypothesis", "third")
    assert "this is use number 3 of the holdout: the intervals of all 3 uses hold together with 95%" in out
    assert [line.rpartition(": ")[2] for line in out.splitlines() if line.startswith("  use ")] == [
        "above 60%?",
        "again",
    ]
    entries = read_chain(ledger_of(holdout))
    assert [(entry["event"], entry["use"]) for entry in entries] == [
        (event, use) for use in (1, 2, 3) for event in ("opened", "result")
    ]
    assert {"user", "time", "command", "file_sha256", "previous", "hypothesis"} <= entries[0].keys()
    assert entries[0]["runs"][0]["path"] == str(small_run.path)
    assert entries[1]["result_sha256"] == entries[3]["result_sha256"]  # the same run and file


@pytest.mark.parametrize(("split", "order"), [("dev", 1), ("train", -1)])
def test_copied_pairs_of_the_run_are_refused(split, order, small_run, tmp_path, call):
    """A copy of the pairs that the run trained on or chose by is refused; also in another order."""
    count = json.loads(small_run.summary.read_text("utf-8"))["data"][split]["pairs"]
    lines = sample_files()[f"{split}.json"].splitlines(keepends=True)[:count]
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(b"".join(lines[::order]))
    code, _, error = call(small_run.path, "--holdout", copy, "--hypothesis", "above 60%?")
    assert code == REFUSED
    assert "has the pairs of a data file of" in error
    assert not ledger_of(copy).exists()


def test_swapped_and_test_pairs_are_known(small_run, tmp_path, call):
    """A copy with the two sentences of each pair swapped is refused, and labelled test pairs have a digest, too."""
    data = load_dataset(load(small_run.path).dataset)
    copy = tmp_path / "copy.jsonl"
    rows = zip(data.dev.sentence1, data.dev.sentence2, data.dev.labels, strict=True)
    swapped = ({"sentence1": second, "sentence2": first, "label": str(label)} for first, second, label in rows)
    copy.write_text("".join(json.dumps(row) + "\n" for row in swapped))
    code, _, error = call(small_run.path, "--holdout", copy, "--hypothesis", "q")
    assert (code, "has the pairs of a data file of" in error) == (REFUSED, True), error
    digests = data_digests(replace(data, test=data.dev))
    assert digests["test"]["sentences_sha256"] == digests["dev"]["sentences_sha256"]


def test_several_runs(small_run, holdout, call, tmp_path):
    """The mean of several runs is one use."""
    copies = [shutil.copytree(small_run.path, tmp_path / name) for name in ("a", "b")]
    code, out, error = call(*copies, "--holdout", holdout, "--hypothesis", "mean", "--json")
    assert code == DONE, error
    assert json.loads(out)["runs"] == 2
    assert len(read_chain(ledger_of(holdout))[0]["runs"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "also needs --hypothesis TEXT"),
        (("--hypothesis", "  "), "--hypothesis: must not be empty"),
        (("--hypothesis", "q", "--data", "x"), "--holdout: not with --data or -o"),
    ],
)
def test_invalid_arguments(arguments, message, small_run, holdout, call):
    """They are one message, and no use."""
    code, _, error = call(small_run.path, "--holdout", holdout, *arguments)
    assert (code, message in error) == (REFUSED, True)
    assert not ledger_of(holdout).exists()


def test_refused_before_the_labels_are_read(small_run, holdout, call, tmp_path, monkeypatch):
    """A changed file, a damaged ledger and one that cannot be written are refused, and the labels are not read."""
    read = Predictor.read_pairs
    labelled = []

    def watched(self, path, labelled_, *arguments, **options):
        labelled.append(labelled_)
        return read(self, path, labelled_, *arguments, **options)

    monkeypatch.setattr(
        Predictor, "read_pairs", lambda self, path, labelled, **options: watched(self, path, labelled, **options)
    )
    arguments = (small_run.path, "--holdout", holdout, "--hypothesis", "q")
    assert call(*arguments)[0] == DONE
    assert labelled == [False, True]
    content, text = holdout.read_bytes(), ledger_of(holdout).read_text("utf-8")
    holdout.write_bytes(content[: content.index(b"\n") + 1] * 24)
    code, _, error = call(*arguments)
    assert (code, "has changed since its first use" in error) == (REFUSED, True)
    holdout.write_bytes(content)
    ledger_of(holdout).write_text(text.replace('"q"', '"p"'), "utf-8")
    code, _, error = call(*arguments)
    assert (code, "damaged: line 1 was edited" in error) == (REFUSED, True)
    ledger_of(holdout).unlink()
    ledger_of(holdout).symlink_to(tmp_path / "elsewhere")
    code, _, error = call(*arguments)
    assert (code, "cannot be written" in error) == (REFUSED, True)
    assert not (tmp_path / "elsewhere").exists()
    assert labelled.count(True) == 1


def test_missing_and_unlabelled_files(small_run, holdout, call, tmp_path):
    """A missing file does not count as a use. One without labels does, because they were asked for."""
    code, _, error = call(small_run.path, "--holdout", tmp_path / "none.jsonl", "--hypothesis", "q")
    assert (code, "none.jsonl" in error, "Traceback" in error) == (REFUSED, True, False)
    rows = [json.loads(line) for line in holdout.read_text("utf-8").splitlines()]
    holdout.write_text("".join(json.dumps({**row, "label": None}) + "\n" for row in rows), "utf-8")
    code, _, error = call(small_run.path, "--holdout", holdout, "--hypothesis", "q")
    assert (code, "Traceback" in error) == (REFUSED, False)
    assert [entry["event"] for entry in read_chain(ledger_of(holdout))] == ["opened"]


def test_data_of_the_run_are_refused(small_run, holdout, call, tmp_path):
    """The labels of a file that a run was trained or evaluated on are not sealed."""
    copy = RunDir(shutil.copytree(small_run.path, tmp_path / "copy"))
    config = load(copy.path)
    config.dataset.source, config.dataset.dev_file = Source.files, str(holdout)
    config.dataset.train_file = "train.json"
    save(config, copy.config)
    code, _, error = call(copy.path, "--holdout", holdout, "--hypothesis", "q")
    assert (code, "which has read its labels already" in error) == (REFUSED, True)
    assert not ledger_of(holdout).exists()


@pytest.fixture
def chain(tmp_path):
    path = tmp_path / "chain.jsonl"
    for number in range(4):
        append_entry(path, lambda entries, number=number: {"number": number, "before": len(entries)})
    return path


def changed(lines, change):
    return {
        "edit": [lines[0], lines[1].replace('"number": 1', '"number": 9'), *lines[2:]],
        "edit of the last": [*lines[:3], lines[3].replace('"number": 3', '"number": 9')],
        "removal": [lines[0], *lines[2:]],
        "removal of the first": lines[1:],
        "order": [lines[1], lines[0], *lines[2:]],
        "repetition": [*lines, lines[-1]],
        "no JSON": [*lines, "{"],
        "another value": [*lines, "[1]"],
    }[change]


@pytest.mark.parametrize(
    "change",
    [
        "edit",
        "edit of the last",
        "removal",
        "removal of the first",
        "order",
        "repetition",
        "no JSON",
        "another value",
    ],
)
def test_chain_finds_changes(change, chain):
    """Every change of a line is found when the chain is read, and nothing is appended to it."""
    lines = chain.read_text("utf-8").splitlines()
    text = "\n".join(changed(lines, change)) + "\n"
    chain.write_text(text, "utf-8")
    with pytest.raises(InputError, match="damaged: line"):
        read_chain(chain)
    with pytest.raises(InputError, match="damaged: line"):
        append_entry(chain, lambda _: {})
    assert chain.read_text("utf-8") == text


def test_chain_is_appended_by_one_at_a_time(chain):
    """Concurrent uses are in one chain, and each counts those before it."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: append_entry(chain, lambda entries: {"before": len(entries)}), range(24)))
    assert [entry["before"] for entry in read_chain(chain)] == list(range(28))
