"""Any file at all: a data set, or one message that names the file; which can be trained on and written down."""

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

SOUND = b'{"sentence1": "a", "sentence2": "b", "label": "0"}\n{"sentence1": "c", "sentence2": "d", "label": "1"}\n'

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
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def written(place, file):
    name, content = file
    (place / name).write_bytes(content)
    return place / name


def hold_to_one_message(error, *paths):
    """It names the file, and the line where there is one; or the key; and it fits on a screen."""
    told = str(error)
    files = "|".join(re.escape(str(path)) for path in paths)
    assert re.match(rf"({files})(:\d+)?: \S|dataset\.\w+(=|: )", told), told
    assert len(told) < 1000, told
    assert "Traceback" not in told


def hold_to_what_is_promised(data):
    """Columns of one length, labels in the set, texts that can be written, and the facts about them."""
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
def test_a_file_is_read_or_told_in_one_message(place, file, split, config):
    path = written(place, file)
    (place / "sound.jsonl").write_bytes(SOUND)
    named = {f"{other}_file": str(place / "sound.jsonl") for other in ("train", "dev", "test")}
    config = replace(config, **(named | {f"{split}_file": str(path)}))
    try:
        data = load_dataset(config)
    except InputError as error:
        hold_to_one_message(error, path, place / "sound.jsonl")  # sound, but not under any config
    else:
        hold_to_what_is_promised(data)


@given(file=files(), config=configs)
def test_with_complaints_what_is_left_of_a_file_is_sound(place, file, config):
    path = written(place, file)
    told = []
    config = replace(config, train_file=str(path), dev_file=str(path))
    try:
        data = load_dataset(config, told.append)
    except InputError as error:
        hold_to_one_message(error, path)
    else:
        hold_to_what_is_promised(data)
    for text in told:
        hold_to_one_message(text, path)


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A run's parts with the weights that it begins with, which score as well as any for this."""
    job = prepared(tmp_path_factory.mktemp("run") / "run")
    model = job.accelerator.prepare(job.model)
    return Predictor(job.config, job.data.labels, model, job.pair_tokenizer, job.accelerator)


@settings(max_examples=settings.default.max_examples // 3)
@given(file=files(), labelled=st.sampled_from([True, False, None]))
def test_a_file_is_scored_and_its_predictions_written_or_told_in_one_message(opened, place, file, labelled):
    path = written(place, file)
    try:
        pairs = opened.read_pairs(path, labelled, "--data")
    except InputError as error:
        hold_to_one_message(error, path)
        return
    found = opened.evaluate(pairs)
    assert found.logits.shape == (len(pairs), 2)
    assert np.isfinite(found.logits).all()
    rows = prediction_rows(pairs.ids, found.logits, pairs.labels, opened.labels)
    rows = [{key: value for key, value in row.items() if key != "logits"} for row in rows]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    assert [json.loads(line) for line in text.encode("utf-8", "backslashreplace").splitlines()] == rows


def test_a_wide_line_takes_no_longer_than_its_length(place):
    """Names there twice are looked for in time that grows with their number, not with its square."""
    names = [f"column {number}" for number in range(200_000)]
    rows = {"wide.csv": ",".join([*names, "sentence1", names[7]]), "wide.jsonl": json.dumps(dict.fromkeys(names, 1))}
    for name, text in rows.items():
        (place / name).write_text(text.removesuffix("}") + ', "column 7": 2}\n' if "json" in name else text + "\n")
        config = DatasetConfig(train_file=str(place / name), dev_file=str(place / name))
        with pytest.raises(InputError, match="'column 7'.* twice"):
            load_dataset(config)


@pytest.mark.slow
def test_the_commands_tell_a_bad_file_in_one_message_and_write_nothing(tmp_path):
    """A few of the files above, through evaluate and predict as a person calls them."""
    run = train(tmp_path / "run", "epochs=1")
    contents = [
        b"", b"\0" * 100, b"{", b'{"sentence1": "a", "sentence2": "b", "label": "\\udc00"}', SOUND + b"\xff",
        b'{"sentence1": "a", "sentence2": "b", "id": "\\ud800", "label": "1"}\n', "\ufeff".encode() + SOUND,
    ]  # fmt: skip
    for number, (content, name) in enumerate(itertools.product(contents, ["evaluate", "predict"])):
        file, out = tmp_path / f"{number}.jsonl", tmp_path / f"{number}.out"
        file.write_bytes(content)
        given = ["--data", str(file), "--json"] if name == "evaluate" else [str(file), "-o", str(out)]
        ended = command(name, str(run.path), *given, cwd=tmp_path)
        assert ended.returncode in (0, 2), ended.stderr
        assert "Traceback" not in ended.stderr
        if ended.returncode == 2:
            hold_to_one_message(ended.stderr.strip(), file)
            assert ended.stdout == ""
            assert not out.exists()
        else:
            text = ended.stdout if name == "evaluate" else out.read_text(encoding="utf-8")
            assert all(json.loads(line) for line in text.splitlines())
