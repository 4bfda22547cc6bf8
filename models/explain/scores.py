"""The log-odds of a class: the quantity that is explained.

    s_k = log p_k - log (1 - p_k) = z_k - log sum_{j != k} exp z_j

with z the logits over the card's temperature. Unlike p it does not saturate where the model is
sure, and unlike the loss, which Sun (2023) differentiates, it needs no true labels and classes of
opposite sign do not cancel. One logit z is that of the second of two classes: s = (-z, z).
"""

import torch


def log_odds(logits: torch.Tensor, *, temperature: float = 1.0) -> torch.Tensor:
    """Return the log-odds (n, n_classes) of logits (n, 1) or (n, n_classes)."""
    z = logits / temperature
    if z.shape[1] == 1:
        return torch.cat([-z, z], dim=1)
    own = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    others = z[:, None, :].masked_fill(own, -torch.inf)
    return z - torch.logsumexp(others, dim=2)
