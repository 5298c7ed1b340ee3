"""Measure in headless Chromium how much time of the page's thread sorting and filtering take, layout included.

python -m afqmc.compare SWEEP_DIR --html PAGE && python tests/support/page_speed.py PAGE
"""

import sys
from pathlib import Path
from statistics import median

from browser import Browser

TIMES = 9
SORT = "document.querySelector('#ranking-table th:nth-child({column}) button').click()"
FILTER = "(box.value = '{text}', box.dispatchEvent(new Event('input')))"


def busy(browser):
    """Return the CPU time of the page's thread so far, in seconds, which does not depend on other processes."""
    return {one["name"]: one["value"] for one in browser("Performance.getMetrics")["metrics"]}["TaskDuration"]


def milliseconds(browser, action):
    """Return how long an action takes, with the layout that it causes."""
    before = busy(browser)
    browser.js(
        f"{{ const box = document.querySelector('#ranking-filter'); {action};"
        " document.querySelector('#ranking-table').getBoundingClientRect(); }"
    )
    return 1000 * (busy(browser) - before)


def main():
    """Print the median and the longest time of each action."""
    browser = Browser()
    try:
        browser.emulate()
        browser("Performance.enable", timeDomain="threadTicks")
        browser.open(Path(sys.argv[1]))
        print(f"{browser.js('document.querySelector(`#ranking-count`).textContent')} rows, {TIMES} times each")
        actions = {
            "sort by the first column": [SORT.format(column=2)] * TIMES,
            "sort by the metric": [SORT.format(column=3)] * TIMES,
            "filter": [FILTER.format(text=text) for text in ("", "1") * TIMES][:TIMES],
        }
        for name, steps in actions.items():
            times = [milliseconds(browser, step) for step in steps]
            print(f"{name}: {median(times):.0f} ms, at most {max(times):.0f} ms")
    finally:
        browser.close()


if __name__ == "__main__":
    main()
