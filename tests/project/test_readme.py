"""The README and docs/: commands run or compose, both languages agree, and generated pages are current."""

import ast
import csv
import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import PYTHON, command, environment
from hydra.core.override_parser.overrides_parser import OverridesParser

from afqmc.config import compose
from afqmc.config.overrides import quote_overrides
from afqmc.data.sample import sample_files
from afqmc.utils.language import catalogue
from hydra_plugins.afqmc_sweeps._override_grammar import parse_dimension

ROOT = Path(__file__).parents[2]
PAGES = {
    "README.md": "README.zh-CN.md",
    **{
        f"docs/{path.name}": f"docs/{path.stem}.zh.md"
        for path in sorted((ROOT / "docs").glob("*.md"))
        if not path.name.endswith(".zh.md")
    },
}
MANUAL = [page for page in PAGES if "/reference-" not in page]  # docs/reference.py generates the others
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for pair in PAGES.items() for name in pair}
SHORT = (
    "tracker=none", "trainer.max_steps=2", "dataset.max_train_samples=64", "dataset.max_dev_samples=64",
    "dataset.max_test_samples=16", "dataset.max_length=64",
)  # fmt: skip
AFTER_A_RUN = ("evaluate", "predict", "compare", "ls", "reproduce")
STAND_INS = {  # what options of commands need to work with the small run and its copies
    "--abstain": "0.9",  # this run makes too many errors for less
    "--baseline": "0 (+1)",
    "--engine": "torch-bf16",  # needs no export
    "--holdout": "FILE-unseen",
}
GROUPS = "dataset|model|masking|trainer|checkpoint|distributed|performance|tracker|sweep"


def blocks(text, *languages):
    result = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [content for name, content in result if name in languages]


def commands(text):
    """Return the lines of the shell blocks, without comments and extra spaces, continued lines joined."""
    lines = "".join(blocks(text, "bash", "sh")).replace("\\\n", " ").splitlines()
    return [" ".join(line.split(" #")[0].split()) for line in lines]


def unique(*names):
    return list(dict.fromkeys(line for name in names for line in commands(TEXTS[name])))


COMMANDS = unique("README.md")
ALL_COMMANDS = unique(*MANUAL)


def module_of(line):
    """Return ``run`` for a line that calls ``python -m afqmc.run``, also through a launcher; else None."""
    result = re.search(r"-m afqmc\.(\w+)", line)
    return result and result[1]


def arguments(line):
    """Return the words after ``-m afqmc.NAME``."""
    return shlex.split(line.partition(f"-m afqmc.{module_of(line)}")[2])


def calls(lines, *modules):
    return [line for line in lines if module_of(line) in modules]


def code_of(line):
    """Return the code in a line, except in links."""
    return re.findall(r"`[^`]+`", re.sub(r"\[[^]]*\]\([^)]*\)", "", line))


def test_each_page_exists_in_both_languages():
    chinese = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.zh.md")} | {"README.zh-CN.md"}
    assert set(PAGES.values()) == chinese


@pytest.mark.parametrize("page", MANUAL)
def test_languages_have_the_same_commands_code_and_keys(page):
    english, chinese = TEXTS[page], TEXTS[PAGES[page]]
    assert commands(english) == commands(chinese)
    assert blocks(english, "python", "yaml", "json", "bibtex", "") == blocks(
        chinese, "python", "yaml", "json", "bibtex", ""
    )
    for one, other in zip(*(re.findall(r"^\|.*", text, re.MULTILINE) for text in (english, chinese)), strict=True):
        assert code_of(one)[:1] == code_of(other)[:1]
        assert {code for code in code_of(one) if code.isascii()} == {code for code in code_of(other) if code.isascii()}
    assert set(re.findall(r"`[\w.]+=[^`]*`", english)) == set(re.findall(r"`[\w.]+=[^`]*`", chinese))
    headings = [[line.count("#") for line in re.findall(r"^#+ ", text, re.MULTILINE)] for text in (english, chinese)]
    assert headings[0] == headings[1]


def test_readme_is_short():
    for name in ("README.md", "README.zh-CN.md"):
        assert len(TEXTS[name].splitlines()) <= 150


def test_every_command_is_of_a_known_kind():
    kinds = (
        r"(make|sh scripts/setup.sh|pip install|\. \.venv/bin/activate|wandb (sweep|agent)|python -m benchmarks\.|"
        r"python -c)\b"
    )
    assert len(ALL_COMMANDS) > 80
    for line in ALL_COMMANDS:
        assert module_of(line) in ("run", "pretrain", "doctor", "export", "serve", *AFTER_A_RUN) or re.match(
            kinds, line
        ), line


@pytest.mark.parametrize("line", [line for line in ALL_COMMANDS if line.startswith("make ")])
def test_each_make_target_exists(line):
    done = subprocess.run(["make", "-n", line.split()[1]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_commands_without_make_equal_those_of_make():
    recipes = (ROOT / "Makefile").read_text(encoding="utf-8")
    lines = [line for line in COMMANDS if line.startswith("sh scripts/setup.sh")]
    assert len(lines) == 2
    for line in lines:
        _, call = line.split(" && ")
        assert call.removeprefix(".venv/bin/python") in recipes


@pytest.mark.parametrize(
    "line", [line for line in calls(ALL_COMMANDS, "run", "pretrain", "doctor") if "venv" not in line]
)
def test_each_run_composes(line, tmp_path, monkeypatch):
    given = quote_overrides(word for word in arguments(line) if word not in ("--cfg", "job", "--help"))
    config_dir = None
    if "--config-dir" in given:
        at = given.index("--config-dir")
        config_dir = ROOT / given[at + 1]
        del given[at : at + 2]
    monkeypatch.chdir(tmp_path)
    jobs = jobs_of(given)
    for overrides in jobs if line in COMMANDS else jobs[-1:]:
        assert compose(overrides, config_dir, "pretrain" if module_of(line) == "pretrain" else "config")


def jobs_of(given):
    """Return the overrides of a run, or those of the first and the last job of a sweep."""
    overrides = OverridesParser.create().parse_overrides(quote_overrides(word for word in given if word != "-m"))
    if "-m" not in given:
        return [given]
    ends = ([], [])
    for override in overrides:
        values = (
            [override.get_value_element_as_str()]
            if not override.is_sweep_override()
            else parse_dimension(override).bounds()
        )
        for job, value in zip(ends, (values[0], values[-1]), strict=True):
            job.append(f"{override.get_key_element()}={value}")
    return ends


def test_ci_runs_quickstart_and_tests():
    checked = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert {"make quickstart", "make test"} <= set(checked)


@pytest.fixture(scope="module")
def reference():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module("reference")
    finally:
        sys.path.remove(str(ROOT / "docs"))


def test_generated_pages_are_current(reference):
    """python docs/reference.py writes them; docs/reference.zh.json has the Chinese texts."""
    for path, text in reference.pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run python docs/reference.py"


def test_reference_lists_every_key_once(reference):
    keys = [key for key, _, _ in reference.config_keys(reference.Config)]
    listed = re.findall(r"^\| `([\w.]+)`", TEXTS["docs/reference-config.md"], re.MULTILINE)
    assert listed == keys


@pytest.mark.parametrize("line", calls(ALL_COMMANDS, "export", "serve", *AFTER_A_RUN))
def test_arguments_of_other_commands_parse(line, reference):
    parser = reference.parser_of(module_of(line))
    assert vars(parser.parse_intermixed_args(arguments(line)))


@pytest.mark.parametrize("page", [*MANUAL, *(PAGES[page] for page in MANUAL)])
def test_keys_in_pages_exist(page, reference):
    keys = {key for key, _, _ in reference.config_keys(reference.Config)} | {"model._target_"}
    keys |= {".".join(key.split(".")[:2]) for key in keys}  # of groups in groups, such as model.lora
    named = re.findall(rf"`\+?({GROUPS})\.(\w+)", re.sub(r"```.*?```", "", TEXTS[page], flags=re.DOTALL))
    files = {path.suffix[1:] for path in ROOT.rglob("*.*")} | {"txt"}
    assert {f"{group}.{key}" for group, key in named if key not in files} <= keys


@pytest.mark.parametrize("page", [name for pair in PAGES.items() for name in pair])
def test_links_have_targets(page):
    """Links lead to existing files and headings, in the language of the page."""
    for target in re.findall(r"(?:\]\(|src=\")([^)\s\"]+)", re.sub(r"```.*?```", "", TEXTS[page], flags=re.DOTALL)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.is_file(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target
        if page.startswith("docs/") and name:
            assert path.parent == ROOT / "docs", f"{target}: the site has no such file"
            assert page.endswith(".zh.md") == name.endswith(".zh.md"), f"{target}: is in the other language"


def test_pictures_are_small():
    pictures = sorted((ROOT / "docs/pictures").glob("*.png"))
    assert pictures
    assert all(picture.stat().st_size < 150_000 for picture in pictures)


def test_faq_quotes_messages():
    """Each heading in code is a message of the source, with ... for the parts that differ."""
    nodes = [node for path in (ROOT / "afqmc").rglob("*.py") for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    texts = "\n".join(node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    messages = re.findall(r"^### `(.*)`$", TEXTS["docs/faq.md"], re.MULTILINE)
    assert len(messages) >= 20
    for message in messages:
        for part in re.split(r"\.\.\.|> 0 and <= 10|\(|\)", message):
            assert part.strip(" :;,") in texts, message
    assert re.findall(r"^英文：`(.*)`$", TEXTS["docs/faq.zh.md"], re.MULTILINE) == messages
    translations = "\n".join(catalogue()["messages"].values())
    for message in re.findall(r"^### `(.*)`$", TEXTS["docs/faq.zh.md"], re.MULTILINE):
        for part in re.split(r"\.\.\.|> 0 且 <= 10|（|）", message):
            assert part.strip(" ：；，") in translations, message


@pytest.mark.parametrize(
    ("page", "file", "choice"),
    [
        ("docs/your-data.md", "dataset/mine.yaml", "dataset=mine"),
        ("docs/configuration.md", "experiment/mine.yaml", "experiment=mine"),
    ],
)
def test_config_files_in_pages_compose(page, file, choice, tmp_path):
    (text,) = blocks(TEXTS[page], "yaml")
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert compose([choice], tmp_path).dataset.labels == ["no", "yes"]


def test_site_builds_without_warnings(tmp_path):
    """mkdocs build --strict succeeds, which checks the links of the site."""
    pytest.importorskip("mkdocs", reason="needs pip install -e '.[docs]'")
    line = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path / "site")]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site/zh/tutorial/index.html").is_file()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Return a directory with the data that the commands name, and RUN_DIR of a shortened quickstart."""
    home = tmp_path_factory.mktemp("home")
    (home / "DIR").mkdir()
    for name, content in sample_files().items():
        (home / "DIR" / name).write_bytes(content)
    (home / "test.json").write_bytes(sample_files()["test.json"])
    (home / "FILE").write_bytes(sample_files()["dev.json"])
    (home / "FILE-with-same").write_bytes(sample_files()["dev.json"].replace(b'"label"', b'"same"'))
    unseen = [json.loads(line) for line in sample_files()["dev.json"].splitlines()]
    texts = [json.dumps(row | {"sentence1": f"{row['sentence1']}吗呢"}, ensure_ascii=False) for row in unseen]
    (home / "FILE-unseen").write_text("\n".join(texts), encoding="utf-8")
    write_own_pairs(home)
    short = ("tracker=none", "trainer.max_steps=2", "hydra.run.dir=RUN_DIR")
    done = command("run", "experiment=quickstart", *short, cwd=home)
    assert done.returncode == 0, done.stderr
    for sweep in (
        "SWEEP_DIR",
        "outputs/sweeps/lr",
        "outputs/sweeps/tutorial",
        "outputs/sweeps/first",
        "outputs/sweeps/methods",
    ):
        for number, seed in enumerate(("seed: 42", "seed: 43")):
            shutil.copytree(home / "RUN_DIR", home / f"{sweep}/{number}")
            config = home / f"{sweep}/{number}/config.yaml"
            config.write_text(config.read_text(encoding="utf-8").replace("seed: 42", seed), encoding="utf-8")
    (home / "printed").write_text(done.stdout, encoding="utf-8")
    return home


def write_own_pairs(home):
    """Write the user's files: CSV with other column names, JSON lines, and Excel."""
    rows = [json.loads(line) for line in sample_files()["train.json"].splitlines()[:100]]
    for row in rows:
        row["sentence1"] += "呢"  # no sentence of these files is shared by all pairs
    for name in ("train.csv", "dev.csv"):
        with (home / name).open("w", encoding="utf-8", newline="") as file:
            table = [(row["sentence1"], row["sentence2"], ["no", "yes"][int(row["label"])]) for row in rows]
            csv.writer(file).writerows([("question1", "question2", "same"), *table])
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    for name in ("train.jsonl", "dev.jsonl", "test.jsonl"):
        (home / name).write_text(lines, encoding="utf-8")
    openpyxl = pytest.importorskip("openpyxl")
    for row in rows:
        row |= {"问题1": row["sentence1"], "问题2": row["sentence2"], "是否相同": "否是"[int(row["label"])]}
    for name, columns in (
        ("train.xlsx", ["sentence1", "sentence2", "label", "问题1", "问题2", "是否相同"]),
        ("dev.xlsx", ["sentence1", "sentence2", "label"]),
        ("labelled.xlsx", ["sentence1", "sentence2", "label"]),
        ("new.xlsx", ["sentence1", "sentence2"]),
    ):
        book = openpyxl.Workbook()
        for row in (columns, *([row[column] for column in columns] for row in rows)):
            book.active.append(row)
        book.save(home / name)


def test_quickstart_prints_what_its_page_shows(home):
    shown = next(block for block in blocks(TEXTS["docs/quickstart.md"], "") if block.startswith("device: "))
    printed = (home / "printed").read_text(encoding="utf-8")
    for line in shown.splitlines():
        if line.startswith(("data: ", "model: ")):
            assert line in printed
    of_table = [re.findall(r"^│ ([a-z0-9 ]+?) +│", text, re.MULTILINE) for text in (shown, printed)]
    assert len(of_table[0]) > 5
    assert set(of_table[0]) <= set(of_table[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", [line for line in calls(ALL_COMMANDS, "run") if re.search("^python.*(model=mini|dataset=files)", line)]
)
def test_offline_runs_train(line, home, tmp_path):
    own = [] if "model=mini" in line else ["model=mini"]
    done = command("run", *arguments(line), *own, *SHORT, f"hydra.run.dir={tmp_path}/run", cwd=home)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run/summary.json").exists()


def check_command(line, home):
    """Check that a command on a run succeeds and writes its output."""
    name, given = module_of(line), arguments(line)
    if "dataset.label_field=same" in given:
        given[given.index("FILE")] = "FILE-with-same"
    for option, text in STAND_INS.items():
        if option in given:
            given[given.index(option) + 1] = text
    if name == "reproduce" and "-o" in given:
        given[given.index("-o") + 1] = "reproduced"
    done = command(name, *given, cwd=home, env={"WANDB_MODE": "offline"})
    if "--published" in given:
        assert "is about 4316 pairs, the runs have 1600" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    if name == "predict" and "-o" in given:
        assert (home / given[given.index("-o") + 1]).stat().st_size > 0


@pytest.mark.parametrize("line", [line for line in COMMANDS if line.startswith("python -c")])
def test_python_lines_of_readme(line, home):
    done = subprocess.run([PYTHON, *shlex.split(line)[1:]], cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'probability'" in done.stdout


@pytest.mark.parametrize("line", calls(COMMANDS, *AFTER_A_RUN))
def test_commands_of_readme(line, home):
    check_command(line, home)


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for line in calls(ALL_COMMANDS, *AFTER_A_RUN) if line not in COMMANDS])
def test_commands_of_docs(line, home):
    check_command(line, home)


@pytest.mark.parametrize("shown", ["--cfg job", "--help"])
def test_help_and_cfg_show_keys_or_groups(shown, tmp_path):
    assert shown in TEXTS["docs/configuration.md"]
    done = command("run", *shown.split(), cwd=tmp_path)
    assert done.returncode == 0
    assert "mixed_precision" in done.stdout or "experiment" in done.stdout


@pytest.mark.parametrize(
    ("number", "before", "after", "printed"),
    [
        (0, "", "", "  mean"),
        (1, "import afqmc\npredictor = afqmc.load('RUN_DIR')\n", "", "2 花 "),
        (2, "", "\nprint(logits.shape)", "torch.Size([1, 2])"),
    ],
)
def test_python_examples_run(number, before, after, printed, home):
    example = blocks(TEXTS["docs/python.md"], "python")[number].replace("max_steps=100", "max_steps=2")
    done = subprocess.run(
        [PYTHON, "-c", before + example + after],
        cwd=home, env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert printed in done.stdout
