"""What a win rate would be if both answers were equally long: the logistic model of AlpacaEval 2
(arXiv 2404.04475), on scikit-learn.

    logit P(output beats baseline) = theta + phi tanh(delta / sd(delta)) + psi gamma      for each system

delta: characters of the output less those of the baseline; theta: how good the system is; phi: how
much the judge loves length; gamma: how much easier the instruction is to win on, psi: how much that
matters to the system. Then delta is set to 0.

AlpacaEval takes gamma from a fit over its own leaderboard, and holds phi and psi by answers of its
own to two prompts; a file has neither. So gamma is fitted on all systems of the file at once, and
each system's phi and psi are drawn to what they have in common. All penalties are chosen by
cross-validation. Test: pytest tests/tasks/evaluation/winrate/test_rates.py
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import expit

from dapflow.tasks.statistics import Floats

Ints = NDArray[np.int64]
FOLDS = 5
# scikit-learn's C, which is the variance that a coefficient is expected to have: around 0, and
# around what all systems have in common (on the AlpacaEval 2 leaderboard phi and psi vary by 0.3
# from system to system, a variance of 0.1: less is too sure, more than 1 noise).
_ALONE = (0.1, 0.3, 1.0, 3.0, 10.0)
_TOGETHER = (0.1, 0.3, 1.0)
_DIFFICULTIES = (0.3, 1.0, 3.0, 10.0)
_FREE = 30.0  # a column times this is penalised a thousandth as much: what is not to be drawn to 0
_DENSE = 2000  # columns up to which Newton's method is faster than L-BFGS
_TRIED = 1000  # prompts to choose the strengths on: they are the same for more of the kind
_STEPS, _FAR = 25, 12.0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Comparisons in columns: which prompt, which system, the difference of the lengths in
    characters, P(output beats baseline).
    """

    prompt: Ints
    system: Ints
    delta: Floats
    preference: Floats

    def of(self, system: int) -> "Rows":
        """Those of one system."""
        mine = self.system == system
        return Rows(
            prompt=self.prompt[mine],
            system=self.system[mine],
            delta=self.delta[mine],
            preference=self.preference[mine],
        )


@dataclass(frozen=True, kw_only=True)
class Model:
    """What was fitted: theta, phi, psi of each system in `coefficients`, gamma of each prompt (0
    throughout: without difficulty).

    `shared`: the phi and psi that the systems have in common, to which their own are drawn with
    `strength`.
    """

    coefficients: Floats  # (systems, 3)
    difficulty: Floats  # (prompts,)
    shared: Floats  # (2,)
    strength: float

    def win_rate(self, rows: Rows) -> float:
        """The length-controlled win rate of the one system of these rows, from 0 to 1."""
        theta, _, psi = self.coefficients[rows.system[0]]
        return float(expit(theta + psi * self.difficulty[rows.prompt]).mean())

    def resampled(self, rows: Rows, counts: Floats, seed: Sequence[int]) -> Floats:
        """The same of each bootstrap sample, in which prompt p is there counts[b, p] times.

        Each sample is fitted anew by Newton's method, which is scikit-learn's penalised likelihood
        again. What the coefficients are drawn to is drawn at random as well, within what `strength`
        allows: else the interval would know phi and psi better than we do. The difficulties are
        taken as known, as AlpacaEval takes them: where wins are rare, the interval is a little
        narrow for it.
        """
        features = np.column_stack(
            [np.ones(len(rows.prompt)), squashed(rows.delta), self.difficulty[rows.prompt]]
        )
        penalty = np.array([1 / _FREE**2, 1.0, 1.0]) / self.strength
        centre = np.concatenate([[0.0], self.shared])
        noise = (
            np.random.default_rng(seed).standard_normal((len(counts), 3))
            * np.array([0.0, 1.0, 1.0])
            * np.sqrt(self.strength)
        )
        weights = counts[:, rows.prompt]
        fitted = _newton(
            features,
            rows.preference,
            weights,
            penalty,
            centre + noise,
            self.coefficients[rows.system[0]],
        )
        controlled = expit(fitted @ (features * np.array([1.0, 0.0, 1.0])).T)
        drawn = weights.sum(axis=1)
        return (weights * controlled).sum(axis=1)[drawn > 0] / drawn[drawn > 0]


def squashed(delta: Floats) -> Floats:
    """tanh(delta / sd(delta)) of one system's rows; 0 where all answers are as long as the
    baseline's.
    """
    spread = delta.std(ddof=1)
    return np.tanh(delta / spread) if spread > 0 else np.zeros_like(delta)


def fit(rows: Rows, systems: int, prompts: int, difficulty: bool = True) -> Model:
    """The model of all systems. Every system needs FOLDS prompts or more, and some preference that
    is neither all 0 nor all 1.
    """
    length = np.zeros_like(rows.delta)
    for system in range(systems):
        length[rows.system == system] = squashed(rows.of(system).delta)
    for_difficulty, strength = _strengths(
        rows, length, systems, prompts, difficulty and systems > 1
    )
    hardness = np.zeros(prompts)
    if for_difficulty is not None:
        hardness = _scaled(
            _logistic(_difficulty(rows, length, systems, prompts), rows.preference, for_difficulty)[
                systems + 1 :
            ]
        )
    found = _logistic(
        _design(rows, length, hardness[rows.prompt], systems), rows.preference, strength
    )
    found[: systems + 2] *= _FREE
    shared = found[systems : systems + 2] if systems > 1 else np.zeros(2)
    own = found[systems + 2 :].reshape(2, systems).T + shared
    return Model(
        coefficients=np.column_stack([found[:systems], own]),
        difficulty=hardness,
        shared=shared,
        strength=strength,
    )


def _strengths(
    rows: Rows, length: Floats, systems: int, prompts: int, difficulty: bool
) -> tuple[float | None, float]:
    """Those of gamma (None: without) and of phi and psi, by cross-validation on _TRIED of the
    prompts, if there are more.
    """
    step = -(-prompts // _TRIED)
    tried = rows.prompt % step == 0
    some = Rows(
        prompt=rows.prompt[tried] // step,
        system=rows.system[tried],
        delta=rows.delta[tried],
        preference=rows.preference[tried],
    )
    length, folds = (
        length[tried],
        (some.prompt + some.system) % FOLDS,
    )  # in every fold, a prompt has rows of some systems: its gamma is known
    for_difficulty, hardness = None, np.zeros(len(length))
    if difficulty:
        design = _difficulty(some, length, systems, -(-prompts // step))
        for_difficulty, fits = _cross_validate(design, some.preference, folds, _DIFFICULTIES)
        hardness = np.stack([_scaled(one[systems + 1 :]) for one in fits])[
            folds, some.prompt
        ]  # of each row, without its own fold
    design = _design(some, length, hardness, systems)
    return for_difficulty, _cross_validate(
        design, some.preference, folds, _TOGETHER if systems > 1 else _ALONE
    )[0]


def _design(rows: Rows, length: Floats, hardness: Floats, systems: int) -> sparse.csr_array:
    """theta of each system | phi and psi in common (of several systems) | by how much each system's
    phi and psi differ.
    """
    own = _indicators(rows.system, systems)
    both = sparse.csr_array(np.column_stack([length, hardness]) * (systems > 1))
    return sparse.csr_array(
        sparse.hstack(
            [
                own * _FREE,
                both * _FREE,
                own.multiply(length[:, None]),
                own.multiply(hardness[:, None]),
            ]
        )
    )


def _difficulty(rows: Rows, length: Floats, systems: int, prompts: int) -> sparse.csr_array:
    """theta of each system | one phi | gamma of each prompt."""
    free = (
        sparse.hstack([_indicators(rows.system, systems), sparse.csr_array(length[:, None])])
        * _FREE
    )
    return sparse.csr_array(sparse.hstack([free, _indicators(rows.prompt, prompts)]))


def _scaled(gamma: Floats) -> Floats:
    return (gamma - gamma.mean()) / (gamma.std() or 1.0)


def _cross_validate(
    design: sparse.csr_array, preference: Floats, folds: Ints, strengths: tuple[float, ...]
) -> tuple[float, list[Floats]]:
    """The strength with the lowest log-loss on the folds left out, the smaller one of two that are
    equal, and its fits.
    """
    best, kept, lowest = strengths[0], list[Floats](), np.inf
    for strength in strengths:
        fits = [
            _logistic(design[folds != fold], preference[folds != fold], strength)
            for fold in range(FOLDS)
        ]
        scores = np.zeros(len(preference))
        for fold, found in enumerate(fits):
            out = folds == fold
            logit = design[out] @ found
            scores[out] = np.logaddexp(0, logit) - preference[out] * logit
        if scores.mean() < lowest - 1e-9:
            best, kept, lowest = strength, fits, scores.mean()
    return best, kept


def _logistic(design: sparse.csr_array, preference: Floats, strength: float) -> Floats:
    """The coefficients; a preference of 0.7 is a win that counts 0.7 and a loss that counts 0.3."""
    from sklearn.exceptions import (
        ConvergenceWarning,
    )  # a second to import, and most runs judge too few prompts to get here
    from sklearn.linear_model import LogisticRegression

    rows = len(preference)
    labels, weights = np.repeat([1, 0], rows), np.concatenate([preference, 1 - preference])
    solver = "newton-cholesky" if len(design.sum(axis=0)) <= _DENSE else "lbfgs"
    model = LogisticRegression(
        C=strength, fit_intercept=False, solver=solver, tol=1e-6, max_iter=1000
    )
    with (
        warnings.catch_warnings()
    ):  # of a handful of rows, the last steps are below what rounding lets it see
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(sparse.vstack([design, design], format="csr"), labels, sample_weight=weights)
    return np.array(model.coef_[0])


def _newton(
    features: Floats,
    preference: Floats,
    weights: Floats,
    penalty: Floats,
    centre: Floats,
    start: Floats,
) -> Floats:
    """Maximises every sample's penalised likelihood, all at once; features (rows, k), weights
    (samples, rows), centre (samples, k).
    """
    rows, k = features.shape
    squares = (features[:, :, None] * features[:, None, :]).reshape(rows, k * k)
    found = np.tile(start, (len(weights), 1))
    for _ in range(_STEPS):
        chance = expit(found @ features.T)
        slope = (weights * (preference - chance)) @ features - penalty * (found - centre)
        curve = ((weights * chance * (1 - chance)) @ squares).reshape(-1, k, k) + np.diag(penalty)
        move = np.clip(np.linalg.solve(curve, slope[:, :, None])[:, :, 0], -1, 1)
        found = np.clip(found + move, -_FAR, _FAR)
        if np.abs(move).max() < 1e-3:
            break
    return found


def _indicators(index: Ints, count: int) -> sparse.csr_array:
    rows = len(index)
    return sparse.csr_array((np.ones(rows), (np.arange(rows), index)), shape=(rows, count))
