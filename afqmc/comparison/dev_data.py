"""Settings by the data that they were scored on: those of different data cannot be ranked together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from afqmc.results.predictions import Predictions
from afqmc.results.settings import Setting, canonical
from afqmc.utils.errors import InputError

# keys of the data set that do not change which pairs are scored
_NO_PAIRS = ("max_length", "max_train_samples", "batching", "batch_tokens", "streaming", "shuffle_buffer")


def data_groups(
    ranked: Sequence[Setting], metric: str, top: int, read: Callable[[Setting], list[Predictions]]
) -> dict[Setting, int]:
    """The number of each setting's data, from 1: that of the most settings first, of the best one where that is a tie.

    Ids and labels tell data apart. Reading those of every setting takes long, so they are read of the best ``top``, and
    of the others only where the data may differ: another data set in the config, another share of the commonest label,
    or a difference among the best. A setting without readable predictions belongs to settings of the same config.

    Args:
        ranked: The settings, best first.
        metric: As ``split/name``.
        top: How many are compared.
        read: The predictions of a setting's runs.
    """

    def digest(setting: Setting) -> str | None:
        try:
            return read(setting)[0].examples_digest
        except InputError:
            return None

    likely = {setting: _likely_data(setting, metric) for setting in ranked}
    known = {setting: digest(setting) for setting in ranked[:top]}
    if len(set(likely.values())) > 1 or len(set(known.values()) - {None}) > 1:
        known |= {setting: digest(setting) for setting in ranked[top:]}
    of_likely: dict[str, str] = {}
    for setting, found in known.items():
        if found is not None:
            of_likely.setdefault(likely[setting], found)
    data = {one: known.get(one) or of_likely.get(likely[one], likely[one]) for one in ranked}
    order = [name for name, _ in Counter(data.values()).most_common()]  # equal counts in order of appearance
    return {setting: order.index(name) + 1 for setting, name in data.items()}


def _likely_data(setting: Setting, metric: str) -> str:
    """Equal for settings that were likely scored on the same pairs."""
    keys = [key for key in setting.values if key.startswith("dataset.") and key.split(".")[1] not in _NO_PAIRS]
    majority = metric.partition("/")[0] + "/majority_accuracy"
    shares = sorted({canonical(run.figures.get(majority)) for run in setting.runs})
    return canonical([shares, *(canonical(setting.values[key]) for key in keys)])
