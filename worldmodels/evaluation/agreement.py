r"""How far two labellings of the same things agree, beyond chance: adjusted mutual information.

$$\mathrm{AMI} = \frac{I(u, a) - \mathbb E[I]}{\frac{1}{2}(H(u) + H(a)) - \mathbb E[I]}$$

(Vinh, Epps and Bailey, 2010), 1 where each label of one is one of the other, about 0 where they have nothing to do with each
other, whatever the labels are called and however many there are. The expectation is over all labellings with the same counts.
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from worldmodels.types import Array


def contingency(a: Array, u: Array, rows: int, columns: int) -> np.ndarray:
    """How often label a (n,) below `rows` stands with u (n,) below `columns`: int64 (rows, columns)."""
    table = np.zeros((rows, columns), np.int64)
    np.add.at(table, (np.asarray(a), np.asarray(u)), 1)
    return table


def adjusted_mutual_information(table: Array) -> float:
    """AMI of the two labellings whose contingency table this is, as sklearn's `adjusted_mutual_info_score` gives it.

    1 where both have a single label, as they then agree on everything.
    """
    table = np.asarray(table, np.float64)
    a, b, n = table.sum(1), table.sum(0), table.sum()
    a, b = a[a > 0], b[b > 0]
    if len(a) <= 1 and len(b) <= 1:
        return 1.0
    i, j = np.nonzero(table)
    cells = table[i, j]
    information = float((cells / n * (np.log(cells * n) - np.log(table.sum(1)[i] * table.sum(0)[j]))).sum())
    expected = _expected(a, b, n)
    entropy = lambda counts: float(-(counts / n * np.log(counts / n)).sum())
    span = (entropy(a) + entropy(b)) / 2 - expected
    # Nothing to divide by where chance alone already explains everything.
    return (information - expected) / (np.copysign(max(abs(span), np.finfo(np.float64).eps), span))


def _expected(a: np.ndarray, b: np.ndarray, n: float) -> float:
    """Mutual information of two random labellings with these counts: a sum over the hypergeometric law of each cell."""
    log_factorial = lambda x: gammaln(np.asarray(x, np.float64) + 1)
    total = 0.0
    for row in a:
        for column in b:
            cell = np.arange(max(1, row + column - n), min(row, column) + 1)
            log_chance = (
                log_factorial(row) + log_factorial(column) + log_factorial(n - row) + log_factorial(n - column)
                - log_factorial(n) - log_factorial(cell) - log_factorial(row - cell) - log_factorial(column - cell)
                - log_factorial(n - row - column + cell)
            )  # fmt: skip
            total += float((cell / n * np.log(n * cell / (row * column)) * np.exp(log_chance)).sum())
    return total
