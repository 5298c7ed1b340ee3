"""Tests of the page in a real browser: drawing, sorting, filtering, both languages and themes, untrusted texts."""

import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from simulated import answers_of, config_text, simulate, write_run, write_sweep
from test_page import report_of, write_grid, write_noisy_rows, write_on_sample

from afqmc import compare
from afqmc.comparison.html.page import as_html

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: apt-get install chromium")
CONFIG = config_text()
PLOTS = "[...document.querySelectorAll('.plot')].filter((one) => one.checkVisibility())"


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


def page_of(directory, path):
    """Write the page of the runs in a directory, to which a job that never started is added."""
    (directory / "99-never/.hydra").mkdir(parents=True, exist_ok=True)
    path.write_text(as_html(report_of(directory)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    """Write the page of 24 runs of 12 settings with rising curves."""
    directory = write_grid(tmp_path_factory.mktemp("grid"))
    for job in sorted(directory.iterdir()):
        best = json.loads((job / "summary.json").read_text("utf-8"))["best"]["dev/accuracy"]
        rows = [{"step": 10 * n, "epoch": n / 2, "dev/accuracy": best * (1 - 0.5**n)} for n in range(1, 8)]
        rows += [{"step": step, "epoch": step / 20, "train/loss": 1 / (1 + step)} for step in range(70)]
        (job / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        made = {"python": "3.11.7", "hardware": {"device": "cpu", "threads": int(job.name) % 2 + 1}}
        (job / "environment.json").write_text(json.dumps(made), encoding="utf-8")
    return page_of(directory, tmp_path_factory.mktemp("page") / "report.html")


@pytest.fixture
def opened(browser, grid):
    """Open the page of the grid."""
    browser.emulate()
    browser.open(grid)
    return browser


def scroll_through(browser):
    """Scroll to every plot and wait until it is drawn."""
    browser.js(f"Promise.resolve({PLOTS}.forEach((one) => one.scrollIntoView({{behavior: 'instant'}})))")
    for number in range(browser.js(f"{PLOTS}.length")):
        browser.js(f"{PLOTS}[{number}].scrollIntoView({{behavior: 'instant'}})")
        browser.until(f"'drawn' in {PLOTS}[{number}].dataset && {PLOTS}[{number}].querySelector('.main-svg')")


def column(browser, table, index):
    """Return the texts of a column of a table."""
    cells = f"[...document.querySelectorAll('#{table} tbody tr')].map((row) => row.children[{index}].textContent)"
    return browser.js(cells)


DEVICES = {
    "laptop, light, English": {},
    "laptop, dark, Chinese": {"dark": True, "language": "zh-CN"},
    "phone, light, Chinese": {"width": 390, "height": 844, "language": "zh-CN"},
    "phone, dark, English": {"width": 390, "height": 844, "dark": True},
}


@pytest.mark.parametrize("device", DEVICES)
def test_page_draws_everything(device, browser, grid):
    """All plots are drawn without errors, requests or horizontal scrolling."""
    options = DEVICES[device]
    browser.emulate(**options)
    browser.open(grid)
    scroll_through(browser)
    assert browser.complaints == []
    assert browser.requests == [grid.as_uri()]
    assert browser.js(f"{PLOTS}.length") >= 8
    assert browser.js("document.documentElement.scrollWidth") <= options.get("width", 1280)
    is_chinese = "language" in options
    assert browser.js("document.querySelector('#ranking h2').textContent") == ("排名" if is_chinese else "Ranking")
    assert browser.js("document.documentElement.lang") == ("zh" if is_chinese else "en")
    light = browser.js("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert light is not options.get("dark", False)
    drawn = browser.js("getComputedStyle(document.querySelector('#curve-plot text')).fill")
    assert (drawn == "rgb(28, 33, 40)") is light


def contrast(one, other):
    """Return the contrast ratio of two ``rgb(r, g, b)`` colours, as defined by WCAG 2."""

    def luminance(colour):
        shares = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_page_is_accessible(dark, browser, grid):
    """Texts have enough contrast, and controls have names."""
    browser.emulate(dark=dark)
    browser.open(grid)
    ground = browser.js("getComputedStyle(document.body).backgroundColor")
    for selector in ("body", "#about", "nav a", "button", ".quiet", "figcaption"):
        assert contrast(browser.js(f"getComputedStyle(document.querySelector('{selector}')).color"), ground) > 4.5
    unnamed = "(one) => !(one.labels?.length || one.ariaLabel || one.textContent.trim())"
    assert browser.js(f"[...document.querySelectorAll('input, select, button')].filter({unnamed}).length") == 0


def test_language_and_theme_switches(opened):
    """The buttons switch the language and the theme."""
    opened.click("#language")
    assert opened.js("document.querySelector('#curves h2').textContent") == "学习曲线"
    assert "置信区间" in opened.js("document.querySelector('#findings').textContent")
    assert not re.search("[a-z]{4,} [a-z]{3,} [a-z]{3,}", opened.js("document.querySelector('#summary').textContent"))
    opened.click("#theme")
    assert opened.js("document.documentElement.dataset.theme") == "dark"
    opened.click("#language")
    assert opened.js("document.querySelector('#curves h2').textContent") == "Learning curves"
    assert opened.complaints == []


def test_selection_on_dev_is_a_caveat(opened):
    """The caveats mention that the weights were selected on dev."""
    assert "the best of 7 evaluations on dev by dev/accuracy, which makes its dev metrics optimistic" in opened.js(
        "document.querySelector('#caveats').textContent"
    )


def test_header_click_sorts(opened):
    """A click on a header sorts in the natural order, a second click reverses it."""
    assert column(opened, "ranking-table", 1) == [str(number) for number in range(1, 13)]
    rates = [f"1e-{power:02}" if power > 4 else "0.0001" for power in (5, 4, 3)]
    rates[-1] = "0.001"
    opened.click("#ranking-table th:nth-child(4) button")
    assert list(dict.fromkeys(column(opened, "ranking-table", 3))) == rates
    opened.click("#ranking-table th:nth-child(4) button")
    assert list(dict.fromkeys(column(opened, "ranking-table", 3))) == rates[::-1]
    assert opened.js("document.querySelectorAll('#ranking-table th')[3].ariaSort") == "descending"
    opened.click("#ranking-table th:nth-child(3) button")
    figures = [float(cell.split()[0]) for cell in column(opened, "ranking-table", 2)]
    assert figures == sorted(figures, reverse=True)


def test_filter_requires_every_word(opened):
    """The filter keeps the rows that contain every word."""
    opened.type("#ranking-filter", "batch_size=8 lr=0.0001")
    assert opened.js("document.querySelector('#ranking-count').textContent") == "1 of 12"
    assert column(opened, "ranking-table", 3) == ["0.0001"]
    opened.type("#ranking-filter", "nothing")
    assert column(opened, "ranking-table", 3) == []


def test_long_ranking_is_drawn_in_parts(browser, tmp_path):
    """The first 100 of 120 rows are drawn at once, others when the last one is in sight; sorting covers all."""
    write_sweep(tmp_path / "sweep", 120, 1, 60, rows=1)
    (tmp_path / "r.html").write_text(as_html(report_of(tmp_path / "sweep")), encoding="utf-8")
    browser.emulate()
    browser.open(tmp_path / "r.html")
    count = "document.querySelectorAll('#ranking-table tbody tr').length"
    assert browser.js(count) == 100
    browser.click("#ranking-table th:nth-child(2) button")
    browser.click("#ranking-table th:nth-child(2) button")
    assert column(browser, "ranking-table", 1)[0] == "120"
    assert browser.js(count) == 100
    browser.js("document.querySelector('#ranking-table tbody').lastElementChild.scrollIntoView({behavior: 'instant'})")
    browser.until(f"{count} === 120")
    assert column(browser, "ranking-table", 1) == [str(number) for number in range(120, 0, -1)]
    assert browser.complaints == []


def wait_for_curves(browser, count):
    """Wait until the plot, which is drawn when it is near the visible area, has this number of curves."""
    browser.js("document.querySelector('#curve-plot').scrollIntoView({behavior: 'instant'})")
    curves = "document.querySelector('#curve-plot').data.filter((one) => one.mode !== 'markers')"
    browser.until(f"'drawn' in document.querySelector('#curve-plot').dataset && {curves}.length === {count}")


def test_controls_toggle_curves(opened):
    """Checkboxes, run buttons and the grey option show and hide curves."""
    opened.js("document.querySelector('#curve-plot').scrollIntoView({behavior: 'instant'})")
    wait_for_curves(opened, 10)
    opened.click("#ranking-table tbody tr:nth-child(6) input")
    opened.js("document.querySelector('#curve-plot').scrollIntoView({behavior: 'instant'})")
    opened.until("document.querySelectorAll('#curve-runs button').length === 12")
    wait_for_curves(opened, 12)
    opened.click("#curve-runs button:nth-child(2)")
    wait_for_curves(opened, 11)
    assert opened.js("document.querySelector('#curve-runs button:nth-child(2)').ariaPressed") == "false"
    opened.choose("#curve-others", True)
    wait_for_curves(opened, 12)
    grey = opened.js("document.querySelector('#curve-plot').data[0].y.filter((value) => value === null).length")
    assert grey == 12
    opened.click("#curve-none")
    wait_for_curves(opened, 1)
    opened.click("#curve-best")
    wait_for_curves(opened, 11)
    assert opened.complaints == []


def test_curves_show_logged_metrics(opened):
    """Curves show the logged metrics over steps or epochs."""
    opened.js("document.querySelector('#curve-plot').scrollIntoView({behavior: 'instant'})")
    opened.choose(
        "#curve-metric",
        opened.js(
            "[...document.querySelectorAll('#curve-metric option')].find((one) => one.text === 'train/loss').value"
        ),
    )
    opened.js("document.querySelector('#curve-plot').scrollIntoView({behavior: 'instant'})")
    opened.until("'drawn' in document.querySelector('#curve-plot').dataset")
    first = "document.querySelector('#curve-plot').data[0]"
    assert opened.js(f"Array.from({first}.x)") == list(range(70))
    assert opened.js(f"Array.from({first}.y)") == pytest.approx([1 / (1 + step) for step in range(70)], abs=1 / 65535)
    opened.choose("#curve-over", "epoch")
    assert opened.js(f"Array.from({first}.x)") == pytest.approx([step / 20 for step in range(70)])


def test_dragging_on_an_axis_selects_runs(opened):
    """Dragging a box on an axis selects the runs inside it."""
    opened.js("document.querySelector('#parallel-plot').scrollIntoView({block: 'center', behavior: 'instant'})")
    opened.until("'drawn' in document.querySelector('#parallel-plot').dataset")
    points = """(() => { const plot = document.querySelector('#parallel-plot'), box = plot.getBoundingClientRect();
        const {xaxis, yaxis} = plot._fullLayout;
        const at = (x, y) => [box.x + xaxis._offset + xaxis.l2p(x), box.y + yaxis._offset + yaxis.l2p(y)];
        return [at(-0.1, 1.05), at(0, 1), at(0.1, 0.9)]; })()"""
    assert opened.js("document.querySelector('#parallel-count').textContent") == "24 of 24"
    opened.drag(opened.js(points))
    opened.until("document.querySelector('#parallel-count').textContent === '8 of 24'")
    opened.click("#parallel-all")
    assert opened.js("document.querySelector('#parallel-count').textContent") == "24 of 24"
    assert opened.complaints == []


def test_lists_select_runs_by_value(opened):
    """Lists select runs by value, for touch screens and keyboards."""
    opened.js("document.querySelector('#parallel-choice').open = true")
    lists = "[...document.querySelectorAll('#parallel-limits select')]"
    titles = opened.js(f"{lists}.map((one) => one.ariaLabel)")
    assert titles[-2:] == ["dev/accuracy, from", "dev/accuracy, to"]
    count = "document.querySelector('#parallel-count').textContent"

    def choose(index, value):
        opened.js(
            f"{{ const one = {lists}.at({index}); one.value = {value}; one.dispatchEvent(new Event('change')); }}"
        )
        return int(opened.js(count).split()[0])

    assert choose(titles.index("lr"), 1) == 24 / opened.js(f"{lists}.at({titles.index('lr')}).options.length - 1")
    assert 0 < choose(-2, 5) < 24
    opened.click("#language")
    assert opened.js(f"{lists}.at(-2).value") == "5"
    opened.click("#parallel-all")
    assert opened.js(count) == "24 / 24"
    assert opened.js(f"{lists}.at(-2).value") == "0"
    assert opened.complaints == []


def test_configs_are_compared(opened):
    """Two configs are shown side by side, with or without equal values."""
    rows = opened.js("document.querySelector('#config-table tbody').innerText")
    assert "lr\t" in rows or "batch_size\t" in rows
    opened.choose("#config-b", "0")
    assert column(opened, "config-table", 0) == []
    opened.choose("#config-all", True)
    opened.type("#config-filter", "weight_decay")
    assert column(opened, "config-table", 0) == ["optimizer.weight_decay"]


def test_machines_and_unfinished_runs_are_listed(opened):
    """Machines are counted, and unfinished runs are listed in both languages."""
    facts = dict(zip(column(opened, "machines-table", 0), column(opened, "machines-table", 2), strict=True))
    assert facts["Python"] == "24"
    assert facts["threads"] == "12"
    assert column(opened, "unfinished-table", 0) == ["99-never"]
    assert column(opened, "unfinished-table", 2) == ["has no config.yaml: invalid, or never started"]
    opened.click("#language")
    assert column(opened, "unfinished-table", 2) == ["没有 config.yaml：输入无效，或从未开始"]


def test_disagreements_are_searched(browser, tmp_path):
    """The pairs are sorted by disagreement, searched and filtered."""
    pairs = write_on_sample(tmp_path / "runs")
    browser.emulate()
    browser.open(page_of(tmp_path / "runs", tmp_path / "r.html"))
    apart = [float(cell) for cell in column(browser, "pairs-table", 8)]
    assert len(apart) == 40
    assert apart == sorted(apart, reverse=True)
    browser.type("#pairs-filter", pairs[7]["sentence1"])
    assert column(browser, "pairs-table", 1) == [pairs[7]["sentence1"]]
    browser.type("#pairs-filter", "")
    browser.choose("#pairs-kind", "a")
    rows = list(zip(*(column(browser, "pairs-table", index) for index in (3, 4, 5)), strict=True))
    assert rows
    assert all(label == a != b for label, a, b in rows)
    assert "contains sentences" in browser.js("document.querySelector('#pairs-note').textContent")
    assert browser.complaints == []


def test_page_forbids_network_access(opened):
    """The content security policy blocks requests."""
    fetched = "fetch('https://example.com/').then(() => 'sent', () => 'refused')"
    assert opened.js(fetched) == "refused"
    assert any("Content Security Policy" in one for one in opened.complaints)


BREAKOUTS = ("</script><script>owned=1</script>", "<!--<script>", "<img src=x onerror=owned=1>", "__proto__")


def write_hostile(directory):
    """Write runs in which every text tries to become markup."""
    rng = np.random.default_rng(0)
    bad = BREAKOUTS[0]
    for number, one in enumerate(simulate(rng, 12, 1, 60)[0]):
        config = CONFIG.replace("batching: length", f"batching: {json.dumps(BREAKOUTS[number % 4])}")
        config = (
            config.replace("lr: 0.0005", f"lr: {number + 1}.0")
            + f"\n{json.dumps(bad)}: {number % 5}\n__proto__: {number % 3}\n"
        )
        run = directory / f"{number} <img src=x onerror=owned=1> %{{x}} <b>"
        write_run(run, config.replace("seed: 42", f"seed: {json.dumps(bad)}"), one, collapsed_label=bad)
        (run / "metrics.jsonl").write_text(
            json.dumps({"step": 1, "dev/accuracy": 0.5, f"x/{bad}": 1, "x/__proto__": 2})
        )
        (run / "environment.json").write_text(json.dumps({"python": bad, "packages": {bad: bad, "__proto__": "1"}}))
        text = (run / "predictions/dev.jsonl").read_text("utf-8")
        (run / "predictions/dev.jsonl").write_text(
            text.replace('"1"', json.dumps(bad)).replace('"0"', json.dumps("<b>0"))
        )
        (run / "checkpoints/best").mkdir(parents=True)
        (run / "checkpoints/best/labels.json").write_text(json.dumps(["<b>0", bad]))
    (directory / f"broken {BREAKOUTS[2]}").mkdir()
    (directory / f"broken {BREAKOUTS[2]}/status.json").write_text(json.dumps({"status": bad, "error": bad}))
    return directory


@pytest.mark.parametrize("language", ["en-US", "zh-CN"])
def test_untrusted_texts_stay_texts(language, browser, tmp_path):
    """Untrusted texts are never interpreted as markup."""
    (tmp_path / "r.html").write_text(
        as_html(report_of(write_hostile(tmp_path / "runs")), with_sentences=False), encoding="utf-8"
    )
    browser.emulate(language=language)
    browser.open(tmp_path / "r.html")
    scroll_through(browser)
    browser.choose("#curve-metric", "1")
    assert browser.complaints == []
    assert browser.requests == [(tmp_path / "r.html").as_uri()]
    assert browser.js("typeof owned") == "undefined"
    assert browser.js("document.querySelectorAll('img, iframe, object, main script, main a[href^=http]').length") == 0
    shown = browser.js("document.body.innerText")
    assert BREAKOUTS[0] in shown
    assert BREAKOUTS[2] in shown
    for one in ("#importance-plot", "#setting-plots", "#parallel-plot"):
        assert "<" in browser.js(f"document.querySelector('{one}').textContent")


def write_classes(directory, classes, settings=3, examples=200):
    rng = np.random.default_rng(0)
    gold = rng.integers(0, classes, examples)
    for number in range(settings):
        given = rng.dirichlet(np.ones(classes), examples) + 0.4 * number * np.eye(classes)[gold]
        given /= given.sum(axis=1, keepdims=True)
        config = re.sub(r"labels:\n(  - .*\n)+", f"labels: {[str(one) for one in range(classes)]}\n", CONFIG)
        config = config.replace("lr: 0.0005", f"lr: {number + 1}.0")
        write_run(directory / f"{number}", config, answers_of(gold, np.log(given)))
    return directory


@pytest.mark.parametrize(("classes", "drawn"), [(3, 3), (30, 12)])
def test_several_classes_are_shown(classes, drawn, browser, tmp_path):
    """With several classes, the curves of each class can be selected."""
    directory = write_classes(tmp_path / "runs", classes)
    (tmp_path / "r.html").write_text(
        as_html(report_of(directory, metric="dev/loss"), with_sentences=False), encoding="utf-8"
    )
    browser.emulate()
    browser.open(tmp_path / "r.html")
    scroll_through(browser)
    losses = [float(cell.split()[0]) for cell in column(browser, "ranking-table", 2)]
    assert losses == sorted(losses)
    assert browser.js("document.querySelectorAll('#curve-class option').length") == drawn
    assert browser.js("document.querySelectorAll('#confusions figure:first-child tbody tr').length") == drawn
    first = browser.js("Array.from(document.querySelector('#roc-plot').data[1].y)")
    browser.js("document.querySelector('#roc-plot').scrollIntoView({block: 'center', behavior: 'instant'})")
    browser.choose("#curve-class", "2")
    browser.until(f"Array.from(document.querySelector('#roc-plot').data[1].y).join() !== '{','.join(map(str, first))}'")
    assert browser.complaints == []


def test_page_with_one_or_no_run(browser, tmp_path):
    """One run, or none, also gives a page."""
    write_run(tmp_path / "one/a", CONFIG, simulate(np.random.default_rng(0), 1, 1, 50)[0][0])
    (tmp_path / "none/0/.hydra").mkdir(parents=True)
    for name, sections in (("one", 6), ("none", 2)):
        (tmp_path / f"{name}.html").write_text(
            as_html(report_of(tmp_path / name), with_sentences=False), encoding="utf-8"
        )
        browser.emulate()
        browser.open(tmp_path / f"{name}.html")
        scroll_through(browser)
        assert browser.complaints == []
        assert browser.js("document.querySelectorAll('nav a').length") == sections


@pytest.mark.slow
def test_thousand_runs_stay_usable(browser, tmp_path, monkeypatch):
    """The page of a thousand runs is written in seconds and reacts quickly."""
    write_sweep(tmp_path / "sweep", 200, 5, 200, rows=200)
    rng = np.random.default_rng(0)
    for job in (tmp_path / "sweep").iterdir():
        write_noisy_rows(job / "metrics.jsonl", 200, 12, rng)
    since = time.process_time()
    monkeypatch.setattr("sys.argv", ["afqmc.compare", str(tmp_path / "sweep"), "--html", str(tmp_path / "r.html")])
    assert compare.main() == 0
    assert time.process_time() - since < 20
    assert os.path.getsize(tmp_path / "r.html") < 7.2e6  # 4,116 more pairs add less than 0.8 MB
    browser.emulate()
    since = time.monotonic()
    browser.open(Path(tmp_path / "r.html"))
    assert time.monotonic() - since < 10
    scroll_through(browser)
    for action in (
        lambda: browser.choose("#curve-others", True),
        lambda: browser.click("#ranking-table th:nth-child(4) button"),
        lambda: browser.type("#ranking-filter", "lr=0.0001"),
        lambda: browser.click("#theme"),
    ):
        since = time.monotonic()
        action()
        browser.js("new Promise((drawn) => requestAnimationFrame(() => setTimeout(drawn)))")
        assert time.monotonic() - since < 3
    assert browser.complaints == []
