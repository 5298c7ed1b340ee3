"""The wheel contains the configs and the embedded data, and works from any directory."""

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import afqmc

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Build the wheel and unpack it into an empty directory."""
    built, site = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("site")
    (recipe,) = re.findall(
        r"^wheel:.*\n\t\$\(python\) (.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    subprocess.run([sys.executable, *recipe.split(), "-d", built], cwd=ROOT, check=True)
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site


def call(site, *arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONSAFEPATH": "1"}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)


def test_every_config_is_in_the_wheel(installed):
    ours = {path.relative_to(ROOT / "conf") for path in (ROOT / "conf").rglob("*.yaml")}
    theirs = {path.relative_to(installed / "afqmc/conf") for path in (installed / "afqmc/conf").rglob("*.yaml")}
    assert theirs == ours


def test_wheel_works_outside_the_checkout(installed, tmp_path):
    where = call(installed, "-c", "import afqmc; print(afqmc.__file__)", cwd=tmp_path)
    assert str(installed) in where.stdout
    shown = call(installed, "-m", "afqmc.run", "experiment=quickstart", "--cfg", "job", cwd=tmp_path)
    assert "lr: 0.0005" in shown.stdout, shown.stderr
    written = call(installed, "-m", "afqmc.data.sample", "data", cwd=tmp_path)
    assert written.returncode == 0, written.stderr
    assert (tmp_path / "data/train.json").stat().st_size > 100_000


def test_wheel_is_typed(installed):
    assert (installed / "afqmc/py.typed").exists()


def test_versions_agree(installed):
    """The wheel, the changelog and CITATION.cff have the version of ``afqmc.__version__``."""
    metadata = next(installed.glob("*.dist-info")) / "METADATA"
    assert f"Version: {afqmc.__version__}" in metadata.read_text(encoding="utf-8")
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    version, date = re.search(r"^## (\d\S+) - (\S+)$", changelog, re.MULTILINE).groups()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert (version, date) == (afqmc.__version__, citation["date-released"])
    assert citation["version"] == afqmc.__version__


def test_page_assets_and_texts_are_in_the_wheel(installed):
    for package, expected in (("comparison/html", "start.js"), ("inference/serving", "page.js")):
        ours = {path.name for path in (ROOT / f"afqmc/{package}/assets").iterdir()}
        assert {path.name for path in (installed / f"afqmc/{package}/assets").iterdir()} == ours
        assert {"page.html", "page.css", expected} <= ours
    assert (installed / "afqmc/utils/chinese.json").is_file()
