"""Which pixels feed which bins, as sparse matrices on a device.

With ``c_ib`` pyFAI's share of pixel i in bin b, ``N_i`` = solid angle x polarisation x flat and
``D_i`` the dark of the pixel.
"""

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from phasewatch.calibration.reference import Reference


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What no frame changes.

    Attributes
    ----------
    coefficients
        (n_bins, n_pixels) sparse float64, c.
    losses
        (k n_bins, n_pixels) sparse float64, c_ib > 0, c_ib N_i and, where there is a dark, c_ib D_i
        below each other: what an invalid pixel takes from its bins.
    count, norm, dark
        (n_bins,) float64, the sums of `losses` over all pixels.
    used
        (n_pixels,) bool, pixels that feed a bin.
    """

    coefficients: torch.Tensor
    losses: torch.Tensor
    count: torch.Tensor
    norm: torch.Tensor
    dark: torch.Tensor
    used: torch.Tensor

    @classmethod
    def of(cls, reference: Reference, device: torch.device) -> "Plan":
        """Take the shares of pyFAI's sparse engine to `device`."""
        calibration, n_bins = reference.calibration, len(reference.axis)
        (engine,) = (e.engine for m, e in reference.ai.engines.items() if m.algo_lower == "csr")
        shares, pixels, starts = engine.lut
        n_pixels = reference.shape[0] * reference.shape[1]
        c = csr_array((shares.astype(np.float64), pixels, starts), shape=(n_bins, n_pixels))
        c.eliminate_zeros()
        norm = np.asarray(reference.ai.solidAngleArray(reference.shape), np.float64).ravel()
        if calibration.polarization is not None:
            factor = calibration.polarization
            norm = norm * reference.ai.polarization(reference.shape, factor).ravel()
        if calibration.flat is not None:
            norm = norm * calibration.flat.ravel()
        parts = [_scaled(c, 1 / c.data, 1.0), _scaled(c, 1.0, norm)]
        if calibration.dark is not None:
            parts.append(_scaled(c, 1.0, calibration.dark.ravel()))
        sums = [part.sum(axis=1) for part in parts]
        dark = sums[2] if len(sums) == 3 else np.zeros(n_bins)
        used = np.zeros(n_pixels, np.bool_)
        used[c.indices] = True
        return cls(
            coefficients=_sparse(c, device),
            losses=_sparse(vstack(parts, format="csr"), device),
            count=torch.from_numpy(sums[0]).to(device),
            norm=torch.from_numpy(sums[1]).to(device),
            dark=torch.from_numpy(dark).to(device),
            used=torch.from_numpy(used).to(device),
        )


def _scaled(
    c: csr_array, each: float | NDArray[np.float64], pixel: float | NDArray[np.float64]
) -> csr_array:
    weights = pixel if isinstance(pixel, float) else pixel[c.indices]
    return csr_array((c.data * each * weights, c.indices, c.indptr), shape=c.shape)


def _sparse(matrix: csr_array, device: torch.device) -> torch.Tensor:
    starts, columns = (
        torch.from_numpy(a.astype(np.int32)) for a in (matrix.indptr, matrix.indices)
    )
    values = torch.from_numpy(matrix.data)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        sparse = torch.sparse_csr_tensor(
            starts, columns, values, size=matrix.shape, check_invariants=True
        )
        return sparse.to(device)
