"""Asymmetric least squares for a batch of patterns, parallel along the patterns too.

The problem is that of `phasewatch.calibration.baseline`: ``(W + lam D'D) z = W y``, ``D`` the
second difference, solved and re-weighted `n_iter` times. Bins are taken in pairs, which makes the
matrix block tridiagonal. With ``L_k, D_k, U_k`` (2, 2) the blocks of row k and ``b_k`` its
right-hand side, cyclic reduction eliminates every second row,

    G_k = D_k^-1 (L_k  U_k  b_k)            for even k,
    x_k = G_k^b - G_k^L x_{k-1} - G_k^U x_{k+1},

and puts it into its odd neighbours, whose system is block tridiagonal again and half as long. So a
pattern of n bins needs log2(n / 2) levels, each a fixed number of elementwise operations on the
whole batch: no loop over bins, no branch on data, nothing read back (as a CUDA graph needs it). The
number of pairs is filled up to a power of two with pairs that touch nothing.

The elimination is Cholesky's in another order. Both it and the CPU's round by about 1e-16 lam / p:
measured between them, 8e-10 of the maximum at lam 1e5, 5e-9 at 1e7 and 3e-6 at 1e9 (4023 bins, p
0.002). Rounding can turn the weight of a bin that lies on the baseline. That moves a solution by no
more than |y - z| / p of this bin, itself rounding, since weight times residual is continuous there.
"""

import torch
from torch.nn.functional import pad

from phasewatch.calibration.errors import CalibrationError
from phasewatch.calibration.gpu.bridge import bridge


def asls(
    patterns: torch.Tensor, *, lam: float = 1e5, p: float = 0.002, n_iter: int = 10
) -> torch.Tensor:
    """Return the asymmetric least squares baselines of `patterns`.

    Parameters
    ----------
    patterns
        Intensity (n, n_bins), n_bins >= 3. A bin that is not finite is bridged by a straight line
        and is NaN in the result; so is all of a pattern without a finite bin (to raise an error
        would be to wait for the device).
    lam, p, n_iter
        As in `phasewatch.calibration.baseline.asls`.

    Returns
    -------
    Tensor
        Baselines (n, n_bins) float64.

    Raises
    ------
    CalibrationError
        An option is out of range, or the shape is wrong.
    """
    check(lam=lam, p=p, n_iter=n_iter)
    if patterns.ndim != 2 or patterns.shape[1] < 3:
        raise CalibrationError(
            f"pattern: (n, n_bins) with n_bins >= 3 is expected, not {tuple(patterns.shape)}"
        )
    y, finite = bridge(patterns.to(torch.float64))
    n, n_bins = y.shape
    n_pairs = 1 << (-(-n_bins // 2) - 1).bit_length()
    y = pad(y, (0, 2 * n_pairs - n_bins)).view(n, n_pairs, 2).permute(2, 0, 1)
    penalty = _penalty(n_bins, n_pairs, lam, y.device)
    below, above = y.new_full((), 1.0 - p), y.new_full((), p)  # numbers would make them single
    w, z = torch.ones_like(y), y
    for _ in range(n_iter):
        z = _solve(_system(penalty, w, y))
        w = torch.where(y > z, above, below)
    baselines = z.permute(1, 2, 0).reshape(n, 2 * n_pairs)[:, :n_bins]
    return torch.where(finite, baselines, torch.nan)


def check(*, lam: float = 1e5, p: float = 0.002, n_iter: int = 10) -> None:
    """Refuse options of `asls` that are out of range."""
    if not 0 < lam < float("inf"):
        raise CalibrationError(f"baseline lam: must be positive and finite, not {lam}")
    if not 0 < p < 1:
        raise CalibrationError(f"baseline p: must be between 0 and 1, not {p}")
    if not n_iter >= 1 or n_iter != int(n_iter):
        raise CalibrationError(f"baseline n_iter: must be a whole number >= 1, not {n_iter}")


def _penalty(n_bins: int, n_pairs: int, lam: float, device: torch.device) -> torch.Tensor:
    """Return lam D'D as the blocks (L D U) of each pair: (2, 6, n_pairs), 0 beyond `n_bins`."""
    size = 2 * n_pairs
    # bands[k, i] = (lam D'D)[i, i + k]
    bands = torch.zeros((3, size), dtype=torch.float64, device=device)
    rows = n_bins - 2
    for k, offset, value in (
        (0, 0, 1), (0, 1, 4), (0, 2, 1), (1, 0, -2), (1, 1, -2), (2, 0, 1),
    ):  # fmt: skip
        bands[k, offset : offset + rows] += value * lam
    shifted = pad(bands, (2, 0))  # shifted[k, i] = (lam D'D)[i - 2, i - 2 + k]
    main, first, second = bands.view(3, n_pairs, 2)
    _, first_left, second_left = (b.view(n_pairs, 2) for b in shifted[:, :size])
    zero = torch.zeros_like(main[:, 0])
    upper = (second_left[:, 0], first_left[:, 1], main[:, 0], first[:, 0], second[:, 0], zero)
    lower = (zero, second_left[:, 1], first[:, 0], main[:, 1], first[:, 1], second[:, 1])
    return torch.stack([torch.stack(upper), torch.stack(lower)])


def _system(penalty: torch.Tensor, w: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the rows (L D U b) of all pairs, (2, 7, n, n_pairs); `w` and `y` (2, n, n_pairs)."""
    blocks = penalty.unsqueeze(2).expand(-1, -1, y.shape[1], -1)
    rows = torch.cat([blocks, (w * y).unsqueeze(1)], dim=1)
    rows[0, 2] += w[0]
    rows[1, 3] += w[1]
    return rows


def _solve(rows: torch.Tensor) -> torch.Tensor:
    """Return the solution (2, n, n_pairs) of a system of `rows` (2, 7, n, n_pairs)."""
    eliminated = []
    while rows.shape[3] > 1:
        even, odd = rows[..., 0::2], rows[..., 1::2]
        g = _divided(even)
        eliminated.append(g)
        left = odd[:, 0:1] * g[0] + odd[:, 1:2] * g[1]
        after = pad(g[..., 1:], (0, 1))
        right = odd[:, 4:5] * after[0] + odd[:, 5:6] * after[1]
        rows = torch.cat(
            [
                -left[:, 0:2],
                odd[:, 2:4] - left[:, 2:4] - right[:, 0:2],
                -right[:, 2:4],
                odd[:, 6:7] - left[:, 4:5] - right[:, 4:5],
            ],
            dim=1,
        )
    x = _divided(rows)[:, 4]
    for g in reversed(eliminated):
        before = pad(x[..., :-1], (1, 0))
        even = g[:, 4] - g[:, 0] * before[0] - g[:, 1] * before[1] - g[:, 2] * x[0] - g[:, 3] * x[1]
        x = torch.stack([even, x], dim=-1).flatten(-2)
    return x


def _divided(rows: torch.Tensor) -> torch.Tensor:
    """Return G = D^-1 (L U b), (2, 5, n, m), of `rows` (2, 7, n, m), by the factors of D."""
    first, off, last = rows[0, 2], rows[0, 3], rows[1, 3]
    ratio = off / first
    rest = torch.cat([rows[:, 0:2], rows[:, 4:7]], dim=1)
    lower = (rest[1] - ratio * rest[0]) / (last - ratio * off)
    return torch.stack([(rest[0] - off * lower) / first, lower])
