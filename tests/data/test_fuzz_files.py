"""Random files are loaded as a valid data set, or refused with one message that names the file."""

import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from fuzzing import files, often
from helpers import command, prepared, train
from hypothesis import given, settings
from hypothesis import strategies as st

from afqmc.data.config import DatasetConfig, Format
from afqmc.data.loading import Pairs, load_dataset
from afqmc.data.quality import analyze, summary_lines
from afqmc.evaluation.predictions import prediction_rows
from afqmc.inference.predictor import Predictor
from afqmc.utils.errors import InputError

VALID = b'{"sentence1": "a", "sentence2": "b", "label": "0"}\n{"sentence1": "c", "sentence2": "d", "label": "1"}\n'

configs = st.builds(
    DatasetConfig,
    format=often(st.just(Format.auto), st.sampled_from(Format)),
    columns=often(st.none(), st.lists(st.sampled_from(["sentence1", "sentence2", "label", "数"]), max_size=4)),
    labels=often(st.none(), st.sampled_from([["0", "1"], ["不同", "相同"], ["false", "true"], ["a"], ["a", "a"], []])),
    sentence1_field=often(st.just("sentence1"), st.sampled_from(["", "label", "sentence2"])),
    max_train_samples=often(st.none(), st.integers(1, 3)),
    streaming=st.booleans(),
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def write(directory, file):
    """Write the file and return its path."""
    name, content = file
    (directory / name).write_bytes(content)
    return directory / name


def check_one_message(error, *paths):
    """Check that a short message names the file and perhaps the line, or a key."""
    message = str(error)
    files = "|".join(re.escape(str(path)) for path in paths)
    assert re.match(rf"({files})(:\d+)?: \S|dataset\.\w+(=|: )", message), message
    assert len(message) < 1000, message
    assert "Traceback" not in message


def check_data(data):
    """Check that columns have one length, labels are defined, and texts can be encoded."""
    for split in data.splits().values():
        parts = [split] if isinstance(split, Pairs) else list(split.chunks(2))
        assert sum(map(len, parts)) == len(split) > 0
        for part in parts:
            "".join([*part.sentence1, *part.sentence2, *data.labels]).encode()
            assert len(part.sentence1) == len(part.sentence2) == len(part.ids)
            assert part.labels is None or all(0 <= label < len(data.labels) for label in part.labels)
    assert len(set(data.labels)) == len(data.labels) >= 2
    "\n".join(summary_lines(data, analyze(data))).encode()


@given(file=files(), split=st.sampled_from(["train", "dev", "test"]), config=configs)
def test_random_file_is_loaded_or_refused(directory, file, split, config):
    """A split in a random file is valid data, or one message names the file or a key."""
    path = write(directory, file)
    (directory / "valid.jsonl").write_bytes(VALID)
    named = {f"{other}_file": str(directory / "valid.jsonl") for other in ("train", "dev", "test")}
    config = replace(config, **(named | {f"{split}_file": str(path)}))
    try:
        data = load_dataset(config)
    except InputError as error:
        check_one_message(error, path, directory / "valid.jsonl")  # the valid file is invalid under some configs
    else:
        check_data(data)


@given(file=files(), config=configs)
def test_invalid_rows_are_left_out(directory, file, config):
    """With a callback for complaints, invalid rows are reported and the remaining data is valid."""
    path = write(directory, file)
    complaints = []
    config = replace(config, train_file=str(path), dev_file=str(path))
    try:
        data = load_dataset(config, complaints.append)
    except InputError as error:
        check_one_message(error, path)
    else:
        check_data(data)
    for text in complaints:
        check_one_message(text, path)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    """A predictor with untrained weights, which suffice here."""
    job = prepared(tmp_path_factory.mktemp("run") / "run")
    model = job.accelerator.prepare(job.model)
    return Predictor(job.config, job.data.labels, model, job.pair_tokenizer, job.accelerator)


@settings(max_examples=settings.default.max_examples // 3)
@given(file=files(), labelled=st.sampled_from([True, False, None]))
def test_random_file_is_scored_or_refused(predictor, directory, file, labelled):
    """The predictions for a random file survive JSON, or one message names the file."""
    path = write(directory, file)
    try:
        pairs = predictor.read_pairs(path, labelled, "--data")
    except InputError as error:
        check_one_message(error, path)
        return
    evaluation = predictor.evaluate(pairs)
    assert evaluation.logits.shape == (len(pairs), 2)
    assert np.isfinite(evaluation.logits).all()
    rows = prediction_rows(pairs.ids, evaluation.logits, pairs.labels, predictor.labels)
    rows = [{key: value for key, value in row.items() if key != "logits"} for row in rows]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert [json.loads(line) for line in text.encode("utf-8", "backslashreplace").splitlines()] == rows


def test_many_columns_take_linear_time(directory):
    """The time to find duplicate names grows with their number, not with its square."""
    names = [f"column {number}" for number in range(200_000)]
    rows = {"wide.csv": ",".join([*names, "sentence1", names[7]]), "wide.jsonl": json.dumps(dict.fromkeys(names, 1))}
    for name, text in rows.items():
        (directory / name).write_text(text.removesuffix("}") + ', "column 7": 2}\n' if "json" in name else text + "\n")
        config = DatasetConfig(train_file=str(directory / name), dev_file=str(directory / name))
        with pytest.raises(InputError, match="'column 7'.* twice"):
            load_dataset(config)


@pytest.mark.slow
def test_commands_refuse_invalid_files(tmp_path):
    """evaluate and predict refuse an invalid file with one message, and write nothing."""
    run = train(tmp_path / "run", "epochs=1")
    contents = [
        b"", b"\0" * 100, b"{", b'{"sentence1": "a", "sentence2": "b", "label": "\\udc00"}', VALID + b"\xff",
        b'{"sentence1": "a", "sentence2": "b", "id": "\\ud800", "label": "1"}\n', "\ufeff".encode() + VALID,
    ]  # fmt: skip
    for number, (content, name) in enumerate(itertools.product(contents, ["evaluate", "predict"])):
        file, out = tmp_path / f"{number}.jsonl", tmp_path / f"{number}-out.jsonl"
        file.write_bytes(content)
        arguments = ["--data", str(file), "--json"] if name == "evaluate" else [str(file), "-o", str(out)]
        process = command(name, str(run.path), *arguments, cwd=tmp_path)
        assert process.returncode in (0, 2), process.stderr
        assert "Traceback" not in process.stderr
        if process.returncode == 2:
            check_one_message(process.stderr.strip(), file)
            assert process.stdout == ""
            assert not out.exists()
        else:
            text = process.stdout if name == "evaluate" else out.read_text(encoding="utf-8")
            assert all(json.loads(line) for line in text.splitlines())
