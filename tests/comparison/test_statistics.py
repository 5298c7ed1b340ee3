"""Tests of the differences between settings: significance, adjustment, required seeds and examples, sentences."""

import numpy as np
import pytest
from simulated import simulate
from statsmodels.stats.power import TTestIndPower
from worlds import world

from afqmc.comparison.bootstrap import Resampled, resample
from afqmc.comparison.mcnemar import mcnemar
from afqmc.comparison.pairwise import ALPHA, Difference, OtherSeeds, PairwiseTests, Plan
from afqmc.comparison.wording import difference_sentence, required_effort
from afqmc.results.resampled_metrics import LabelledPredictions


def family(settings=2, seeds=3, examples=400, seed=1, name="accuracy", **design):
    answers, setting = simulate(np.random.default_rng(seed), settings, seeds, examples, **design)
    return PairwiseTests(resample(name, answers, 500), setting)


def test_only_large_difference_is_significant():
    """A large difference is significant, a small one is not."""
    result = family(quality=(3.0, 1.0)).difference(0, 1)
    assert result.significant
    assert result.low > 0
    assert result.plans == ()
    assert not family(quality=(1.01, 1.0)).difference(0, 1).significant


def test_negated_difference_is_symmetric():
    """Swapping the settings negates the difference."""
    both = family()
    one, other = both.difference(0, 1), both.difference(1, 0)
    assert (one.value, one.low, one.p) == pytest.approx((-other.value, -other.high, other.p))
    assert one.negated() == other


def test_interval_agrees_with_p_value():
    """The interval contains zero if and only if the adjusted p-value is above 5%, with any number of settings."""
    for seed in range(20):
        tests = family(settings=4, quality=(2.0, 1.0, 1.7, 1.3), examples=200, seed=seed)
        for result in (tests.difference(a, b) for a in range(4) for b in range(a)):
            assert (result.low <= 0 <= result.high) == (result.p_adjusted > ALPHA)


def test_p_values_are_adjusted_over_all_pairs():
    """Bonferroni's adjustment covers all pairs, not only those with the best setting."""
    several = family(settings=4, quality=(1.0, 1.4, 1.8, 2.2))
    upper = np.triu_indices(4, 1)
    assert several.comparisons == 6
    assert several.p_adjusted[upper] == pytest.approx(np.minimum(6 * several.p[upper], 1))


def test_equivalence_is_rarely_claimed_falsely():
    """Settings that differ by half a point are called equivalent in at most 5% of cases; equal ones often are."""
    claims = {0.0: 0, 0.5: 0}
    for gain in claims:
        for trial in range(200):
            rng = np.random.default_rng(trial)
            resampled, index = world(rng, [gain, 0], 10, examples=100_000, seed_sd=0.1)
            difference = PairwiseTests(resampled, index).difference(0, 1)
            claims[gain] += bool(difference.bound < 0.5)
    assert claims[0.5] <= 0.05 * 200 + 8
    assert claims[0.0] > 150


def test_varying_seeds_increase_the_error():
    """The standard error is larger if the seeds vary more."""
    assert family(seed_sd=0.6).difference(0, 1).error > 1.5 * family(seed_sd=0.0).difference(0, 1).error


def test_single_runs_do_not_generalize():
    """With one run per setting, the result is not about other seeds."""
    single = family(seeds=1, seed_sd=0.0).difference(0, 1)
    assert not single.significant
    assert not single.over_seeds
    assert single.seeds == (1, 1)
    assert [plan.seeds for plan in single.plans] in ([], [None])
    assert all(other.is_assumed for other in single.other_seeds)
    assert single.other_seeds[0].low > single.other_seeds[1].low


def test_single_run_against_several_seeds():
    """Several seeds against a single run: the result is about these runs only."""
    answers, _ = simulate(np.random.default_rng(1), 2, 3, 400)
    result = PairwiseTests(resample("accuracy", answers[:4], 500), [0, 0, 0, 1]).difference(0, 1)
    assert not result.over_seeds
    assert result.seeds == (3, 1)


def test_pairing_reduces_the_error():
    """For independent runs the errors would add up; shared difficult examples reduce the error."""
    answers, _ = simulate(np.random.default_rng(1), 2, 1, 2000, setting_sd=0.1, interaction_sd=0.1)
    accuracy = [np.mean(one.predicted == one.gold) for one in answers]
    apart = np.sqrt(sum(share * (1 - share) / 2000 for share in accuracy))
    assert PairwiseTests(resample("accuracy", answers), [0, 1]).difference(0, 1).error < 0.6 * apart


def test_equal_predictions_do_not_differ():
    """Two runs with equal predictions have no difference and no error."""
    answers, _ = simulate(np.random.default_rng(1), 1, 1, 100)
    result = PairwiseTests(resample("f1", answers * 2, 200), [0, 1]).difference(0, 1)
    assert (result.value, result.error, result.p) == (0, 0, 1)
    assert difference_sentence("a", "b", result, "dev/f1") == "a and b do not differ at all in dev/f1 (one run each)"


def test_rounding_errors_are_not_a_difference():
    """Collapsed runs have equal metrics, but the means over three seeds differ in the last digit."""
    gold = (np.random.default_rng(0).random(4316) < 0.31).astype(int)
    predictions = np.zeros_like(gold)
    answers = [
        LabelledPredictions(gold, predictions, np.log(np.stack([1 - p, p], axis=1)))
        for p in np.full((9, 1), 0.1) * np.ones(4316)
    ]
    result = PairwiseTests(resample("accuracy", answers, 500), [0, 0, 0, 1, 1, 1, 2, 2, 2])
    for second in (1, 2):
        one = result.difference(0, second)
        assert (one.value, one.error, one.p_adjusted, one.plans) == (0, 0, 1, ())
        assert (
            difference_sentence("a", "b", one, "dev/accuracy")
            == "a and b do not differ at all in dev/accuracy (3 seeds)"
        )


@pytest.mark.parametrize(("name", "by"), [("roc_auc", "50.0"), ("f1", "100.0"), ("mcc", "100.0")])
def test_constant_difference_has_no_interval(name, by):
    """A perfect and a collapsed model differ by the same amount on every resample."""
    gold = np.array([0, 1] * 50)
    answers = [
        LabelledPredictions(gold, classes, np.stack([1 - classes, classes], axis=1).astype(float))
        for classes in (gold, 0 * gold)
    ]
    result = PairwiseTests(resample(name, answers, 500), [0, 1]).difference(1, 0)
    start = f"a is ahead of b by {by} points on every resample of the pairs (one run each), so there is no interval"
    assert difference_sentence("b", "a", result, f"dev/{name}").startswith(start)
    assert required_effort(result, "dev/f1") == "the same on every resample of the pairs"


def test_unstable_setting_does_not_hide_others():
    """A setting with unstable seeds does not hide the difference between stable ones."""
    values = np.array([0.70, 0.71, 0.72, 0.76, 0.77, 0.78, 0.70, 0.71, 0.72, 0.3, 0.5, 0.7])
    draws = values + np.random.default_rng(3).normal(0, 1e-4, (500, 12))
    result = PairwiseTests(Resampled(values, draws, 4000, 4000), np.repeat([0, 1, 2, 3], 3))
    assert result.difference(0, 1).p_adjusted < 0.05
    assert result.difference(0, 3).error > 0.11


def test_equal_seed_metrics_leave_uncertainty():
    """The seeds' metrics are equal, but their predictions are not, so the error is not zero."""
    right = np.zeros((4, 40), dtype=int)
    right[0, :20], right[1, 20:], right[2, :15], right[3, 25:] = 1, 1, 1, 1
    gold = np.ones(40, dtype=int)
    answers = [LabelledPredictions(gold, row, np.stack([1 - row, row], axis=1).astype(float)) for row in right]
    result = PairwiseTests(resample("accuracy", answers, 500), [0, 0, 1, 1]).difference(0, 1)
    assert result.value == pytest.approx(0.125)
    assert result.error > 0.03


@pytest.mark.parametrize("by", [0.012, 0.015])
def test_planned_seeds_match_a_t_test(by):
    """Without uncertainty from the examples, the seeds planned are those of a t-test for the assumed difference."""
    values = np.array([0.70, 0.71, 0.72] * 2) + np.repeat([by / 2, -by / 2], 3)
    draws = values + np.random.default_rng(3).normal(0, 1e-5, (500, 6))
    result = PairwiseTests(Resampled(values, draws, 4000, 4000), [0, 0, 0, 1, 1, 1]).difference(0, 1)
    assert result.assumed == pytest.approx(by - 0.2533 * result.error, rel=1e-3)
    by_statsmodels = TTestIndPower().solve_power(result.assumed / 0.01, power=0.8, alpha=0.05)
    assert result.plans[0].seeds == pytest.approx(by_statsmodels, abs=1)


def test_plan_needs_more_examples():
    """If no number of seeds is enough, a plan has more examples, and it works with a simulated truth."""
    draws = np.array([0.7, 0.7, 0.69, 0.69]) + np.random.default_rng(0).normal(0, 0.0062, (500, 2)).repeat(2, axis=1)
    result = PairwiseTests(Resampled(np.array([0.7, 0.701, 0.685, 0.686]), draws, 1000, 1000), [0, 0, 1, 1])
    difference = result.difference(0, 1)
    assert [plan.examples for plan in difference.plans] == [1000, 2000, 4000]
    assert difference.plans[0].seeds is None
    assert difference.plans[2].seeds < 20


def test_groups_of_examples_are_drawn_together():
    """If each example occurs four times, the error is that of a quarter of the examples."""
    answers, _ = simulate(np.random.default_rng(1), 2, 1, 300)
    repeated = [
        LabelledPredictions(*(np.repeat(array, 4, axis=0) for array in (one.gold, one.predicted, one.logits)))
        for one in answers
    ]
    once = PairwiseTests(resample("accuracy", answers), [0, 1]).difference(0, 1)
    grouped = resample("accuracy", repeated, groups=np.repeat(np.arange(300), 4))
    assert (grouped.examples, grouped.units) == (1200, 300)
    assert PairwiseTests(grouped, [0, 1]).difference(0, 1).error == pytest.approx(once.error, rel=1e-6)
    assert PairwiseTests(resample("accuracy", repeated), [0, 1]).difference(0, 1).error < 0.6 * once.error


def test_correction_is_subtracted():
    """The advantage of more evaluations is subtracted from the differences of a setting."""
    answers, setting = simulate(np.random.default_rng(1), 2, 3, 400)
    resampled = resample("accuracy", answers, 200)
    plain = PairwiseTests(resampled, setting).difference(0, 1)
    corrected = PairwiseTests(resampled, setting, False, np.array([0.0, 0.004])).difference(0, 1)
    assert corrected.value == pytest.approx(plain.value + 0.004)
    assert corrected.correction == -0.004
    assert corrected.negated().correction == 0.004


def test_mcnemar_counts_discordant_examples():
    """McNemar's test counts the examples that only one run predicts correctly."""
    gold = np.array([1] * 10)
    one, other = np.array([1] * 8 + [0] * 2), np.array([1] + [0] * 8 + [1])
    result = mcnemar(
        *(LabelledPredictions(gold, classes, np.stack([1 - classes, classes], axis=1)) for classes in (one, other))
    )
    assert (result.only_first, result.only_second) == (7, 1)
    assert result.p == pytest.approx(0.0703125)  # two-sided probability of at most 1 of 8 for a fair coin


def difference(**changes):
    values = {"value": 0.009, "error": 0.004, "low": 0.001, "high": 0.017, "p": 0.03, "p_adjusted": 0.03}
    needs = {"over_seeds": True, "detectable": 0.011}
    return Difference(**{**values, "seeds": (5, 5), **needs, **changes})


@pytest.mark.parametrize(
    ("metric", "changes", "expected"),
    [
        ("dev/f1", {}, "B is better than A by 0.9 points (95% CI 0.1 to 1.7, p = 0.03, 5 seeds)"),
        (
            "dev/f1",
            {"value": 0.001, "low": -0.002, "high": 0.004, "p_adjusted": 0.4, "bound": 0.0035},
            "B and A differ by less than 0.5 points: 0.1 points (95% CI -0.2 to 0.4, p = 0.4, 5 seeds)",
        ),
        (
            "dev/f1",
            {"value": -0.009, "low": -0.017, "high": -0.001, "seeds": (5, 3)},
            "A is better than B by 0.9 points (95% CI 0.1 to 1.7, p = 0.03, 3 and 5 seeds)",
        ),
        (
            "dev/loss",
            {"value": -0.009, "low": -0.017, "high": -0.001},
            "B is better than A by 0.0090 (95% CI 0.0010 to 0.0170, p = 0.03, 5 seeds)",
        ),
        (
            "dev/roc_auc",
            {"low": 0.0002, "p_adjusted": 0.0001},
            "B is better than A by 0.90 points (95% CI 0.02 to 1.70, p < 0.001, 5 seeds)",
        ),
        (
            "dev/f1",
            {"over_seeds": False, "seeds": (1, 1)},
            "B did better than A by 0.9 points in these very runs (95% CI 0.1 to 1.7, p = 0.03, one run each)",
        ),
        (
            "dev/f1",
            {"over_seeds": False, "seeds": (1, 1), "other_seeds": (OtherSeeds(0.004, -0.003, 0.021, False),)},
            "B did better than A by 0.9 points in these very runs (95% CI 0.1 to 1.7, p = 0.03, one run each); "
            "for other seeds, whose standard deviation is 0.4 points here, the 95% CI is -0.3 to 2.1",
        ),
        (
            "dev/roc_auc",
            {"value": -2e-6, "low": -3e-6, "high": 1e-6, "p_adjusted": 0.3},
            "A and B cannot be told apart: 0.0002 points (95% CI -0.0001 to 0.0003, p = 0.3, 5 seeds); "
            "the difference may well be zero",
        ),
        (
            "dev/mcc",
            {"low": -0.002, "p_adjusted": 0.21, "assumed": 0.008, "plans": (Plan(4316, 12), Plan(8632, 7))},
            "B and A cannot be told apart: 0.9 points (95% CI -0.2 to 1.7, p = 0.21, 5 seeds); "
            "a difference of 0.8 points would need 12 seeds each, or 7 with 8,632 dev pairs",
        ),
        (
            "dev/mcc",
            {"low": -0.002, "p_adjusted": 0.21, "assumed": 0.008, "plans": (Plan(4316, None), Plan(8632, 31))},
            "B and A cannot be told apart: 0.9 points (95% CI -0.2 to 1.7, p = 0.21, 5 seeds); "
            "a difference of 0.8 points would need 31 seeds each with 8,632 dev pairs",
        ),
        (
            "dev/mcc",
            {"value": 0.001, "low": -0.002, "p_adjusted": 0.8, "assumed": 0.0003, "plans": (Plan(4316, 90),)},
            "B and A cannot be told apart: 0.1 points (95% CI -0.2 to 1.7, p = 0.8, 5 seeds); "
            "the difference may well be zero",
        ),
        (
            "dev/mcc",
            {"low": -0.002, "p_adjusted": 1.0, "assumed": 0.008, "plans": (Plan(43210, None),)}
            | {"over_seeds": False, "seeds": (1, 1)},
            "B and A cannot be told apart: 0.9 points (95% CI -0.2 to 1.7, p = 1, one run each); "
            "a difference of 0.8 points would need about 43,000 dev pairs",
        ),
    ],
)
def test_difference_sentence(metric, changes, expected):
    """The sentence names the better setting, the size, the interval, the p-value and the seeds."""
    assert difference_sentence("B", "A", difference(**changes), metric) == expected
