"""Group settings by the data they were evaluated on. Settings on different data must not be ranked together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from afqmc.results.predictions import Predictions
from afqmc.results.settings import Setting, canonical
from afqmc.utils.errors import InputError

# dataset keys that do not change which pairs are evaluated
_IRRELEVANT_KEYS = (
    "max_length", "max_train_samples", "batching", "max_tokens_per_batch", "streaming", "shuffle_buffer_size",
)  # fmt: skip


def data_groups(
    ranked: Sequence[Setting], metric: str, top: int, read: Callable[[Setting], list[Predictions]]
) -> dict[Setting, int]:
    """Number the data of each setting, from 1: those of most settings first; on a tie, those of the best setting.

    Data are identified by their ids and labels. Reading these for every setting takes long, so they are read for the
    best ``top`` settings. They are read for the others only if the data may differ: if the configs name different data,
    if the shares of the most frequent label differ, or if the data of the best settings differ. A setting without
    readable predictions is grouped with the settings that have the same dataset config.

    Args:
        ranked: The settings, best first.
        metric: As ``split/name``.
        top: Number of settings to compare.
        read: Returns the predictions of a setting's runs.
    """

    def digest(setting: Setting) -> str | None:
        try:
            return read(setting)[0].examples_digest
        except InputError:
            return None

    assumed_data = {setting: _assumed_data(setting, metric) for setting in ranked}
    digests = {setting: digest(setting) for setting in ranked[:top]}
    if len(set(assumed_data.values())) > 1 or len(set(digests.values()) - {None}) > 1:
        digests |= {setting: digest(setting) for setting in ranked[top:]}
    digest_by_assumed: dict[str, str] = {}
    for setting, value in digests.items():
        if value is not None:
            digest_by_assumed.setdefault(assumed_data[setting], value)
    data = {
        setting: digests.get(setting) or digest_by_assumed.get(assumed_data[setting], assumed_data[setting])
        for setting in ranked
    }
    order = [name for name, _ in Counter(data.values()).most_common()]  # ties in order of appearance
    return {setting: order.index(name) + 1 for setting, name in data.items()}


def _assumed_data(setting: Setting, metric: str) -> str:
    """Return a text that is equal for settings that were probably evaluated on the same pairs."""
    keys = [key for key in setting.values if key.startswith("dataset.") and key.split(".")[1] not in _IRRELEVANT_KEYS]
    majority = metric.partition("/")[0] + "/majority_accuracy"
    shares = sorted({canonical(run.figures.get(majority)) for run in setting.runs})
    return canonical([shares, *(canonical(setting.values[key]) for key in keys)])
