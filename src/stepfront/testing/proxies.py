"""Check a proxy: it repeats itself, survives a resumed search, and orders plans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial, create_trial

from stepfront.arrays import Array
from stepfront.search.algorithm.proxies import Proxy, ProxyInputs, find_proxy, rank_correlation
from stepfront.search.algorithm.surrogate import PlanFeatures
from stepfront.search.algorithm.trials import GENOME, RESULT
from stepfront.search.genomes.encodings import Encoding, Levels, Stages


class ProxyConformance:
    """The contract of a proxy.  Set `proxy` to the name that settings would give it.

    The plans have 10 steps in 5 stages.  Each step costs the more FID, the narrower and the later it is.  Override
    `least_correlation` for a proxy that ranks such plans less well.
    """

    proxy: str
    least_correlation = 0.5

    def encoding(self) -> Encoding:
        """Return the space of plans."""
        return Stages(10, (0.25, 0.5, 1.0), False, 5)

    def gap(self) -> Array:
        """Return how much each step at each width adds to the loss, [steps, widths]."""
        return np.linspace(0.5, 2.0, 10)[:, None] * np.array([1.0, 0.4, 0.0])

    def fid(self, levels: Levels) -> float:
        """Return the FID of a plan."""
        gap = self.gap().reshape(5, 2, 3).sum(axis=1)
        return 1.0 + float(gap[np.arange(5), levels].sum())

    def inputs(self) -> ProxyInputs:
        """Return what a proxy may be made from."""
        encoding = self.encoding()
        return ProxyInputs(encoding, lambda: PlanFeatures(encoding, self.gap()), lambda: self._paired)

    def _paired(self, levels: Levels) -> float:
        return 0.01 * (self.fid(levels) - 1.0) ** 2

    def made(self) -> Proxy:
        """Return a new proxy."""
        proxy = find_proxy(self.proxy)(self.inputs())
        assert proxy is not None, "the proxy can't be made from inputs that hold all there may be"
        return proxy

    def plans(self, count: int, seed: int) -> list[Levels]:
        """Return random plans."""
        rng = np.random.Generator(np.random.Philox(seed))
        return [rng.integers(0, 3, 5) for _ in range(count)]

    def trials(self, plans: Sequence[Levels]) -> tuple[list[FrozenTrial], Array]:
        """Return complete trials of the plans, and their scores [N, 2] of FID and GFLOPs."""
        scores = np.array([[self.fid(levels), 1.0 + float(levels.sum())] for levels in plans])
        trials = []
        for number, (levels, score) in enumerate(zip(plans, scores.tolist(), strict=True)):
            result = {"fid": score[0], "gflops": score[1], "paired": self._paired(levels)}
            attributes = {GENOME: self.encoding().pack(levels), RESULT: result}
            trial = create_trial(values=score, user_attrs=attributes)
            trial.number = number
            trials.append(trial)
        return trials, scores

    def test_learning_returns_a_rank_correlation(self) -> None:
        """The result of `learn` is Kendall's tau of the proxy with FID, or NaN."""
        proxy, (trials, scores) = self.made(), self.trials(self.plans(24, 0))
        tau = proxy.learn(trials, scores)
        assert np.isnan(tau) or -1 <= tau <= 1, f"the correlation is {tau}"

    def test_every_child_has_a_finite_prediction_or_none(self) -> None:
        """Predictions are one number per child; NaN stands for an unknown one, and not all are unknown."""
        proxy, (trials, scores) = self.made(), self.trials(self.plans(24, 0))
        proxy.learn(trials, scores)
        children = self.plans(7, 1)
        expected = np.asarray(proxy.predict(children))
        assert expected.shape == (7,), f"{expected.shape} predictions for 7 children"
        assert not np.isinf(expected).any(), "a prediction is infinite"
        assert np.isfinite(expected).any(), "no child has a prediction"

    def test_a_resumed_search_predicts_the_same(self) -> None:
        """Learning all trials at once gives the predictions of learning them as they finish."""
        trials, scores = self.trials(self.plans(24, 0))
        steady, resumed = self.made(), self.made()
        for count in range(12, 25):
            steady.learn(trials[:count], scores[:count])
        resumed.learn(trials, scores)
        children = self.plans(16, 1)
        np.testing.assert_array_equal(steady.predict(children), resumed.predict(children))

    def test_better_plans_are_expected_to_be_better(self) -> None:
        """On plans that it has not seen, the order of the predictions is much that of FID."""
        proxy, (trials, scores) = self.made(), self.trials(self.plans(40, 0))
        proxy.learn(trials, scores)
        unseen = self.plans(40, 1)
        fid = np.array([self.fid(levels) for levels in unseen])
        tau = rank_correlation(np.asarray(proxy.predict(unseen), dtype=np.float64), fid)
        assert tau >= self.least_correlation, f"Kendall's tau with FID is {tau:.2f} on plans that it has not seen"
