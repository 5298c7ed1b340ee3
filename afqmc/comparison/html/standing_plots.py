"""Data of the page's plots of where settings stand: intervals, cost against quality, expected best results."""

from __future__ import annotations

from typing import Any

from afqmc.comparison.report import ComparisonReport
from afqmc.comparison.standing import expected_best
from afqmc.comparison.wording import metric_scale

MAX_TRIALS = 200  # points of the curve of expected results


def standing_data(report: ComparisonReport) -> dict[str, Any]:
    """Return the intervals of the compared settings, and of their differences from the first one."""
    rows = {setting: index for index, setting in enumerate(report.settings)}
    differences = {report.compared[0]: (0.0, 0.0, 0.0)} if report.compared else {}
    for comparison in report.comparisons:
        one, sign = comparison.difference, 1 if report.baseline is not None else -1
        low, high = sorted((sign * one.low, sign * one.high))
        differences[comparison.other] = (sign * one.value, low, high)
    scale = metric_scale(report.metric)
    return {
        "settings": [
            {
                "row": rows[setting],
                "mean": setting.mean(report.metric)
                if setting not in report.folds_metric
                else report.folds_metric[setting],
                "values": setting.figures(report.metric),
                "difference": [scale * value for value in differences[setting]],
                **vars(standing),
            }
            for setting, standing in zip(report.compared, report.standings, strict=False)
        ],
        "unit": "points" if scale == 100 else "",
    }


def trial_data(report: ComparisonReport) -> dict[str, Any]:
    """Return the expected best result of n runs chosen at random among those of data 1, and the hours they take."""
    runs = [run for setting in report.settings if report.data_index[setting] == 1 for run in setting.runs]
    values = [value for run in runs if (value := run.figures.get(report.metric)) is not None]
    seconds = [run.total_seconds for run in runs if run.total_seconds is not None]
    best = expected_best(values, report.higher_is_better)[:MAX_TRIALS] if len(values) > 1 else ()
    mean_hours = sum(seconds) / len(seconds) / 3600 if seconds else None
    return {"best": [float(value) for value in best], "hours": mean_hours}


def cost_data(report: ComparisonReport) -> list[dict[str, Any]]:
    """Return duration and metric of each setting of data 1, and whether no other one is both faster and better."""
    sign = 1 if report.higher_is_better else -1
    points = [
        (row, seconds, mean)
        for row, setting in enumerate(report.settings)
        if report.data_index[setting] == 1
        and (mean := setting.mean(report.metric)) is not None
        and (seconds := setting.mean_of("total_seconds")) is not None
    ]
    return [
        {
            "row": row,
            "seconds": seconds,
            "mean": mean,
            "is_efficient": not any(
                other <= seconds and sign * value >= sign * mean and (other, value) != (seconds, mean)
                for _, other, value in points
            ),
        }
        for row, seconds, mean in points
    ]
