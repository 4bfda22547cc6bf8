"""Self-attention over tokens, and what comes after it; for the networks that attend.

    attention(X) = W_o concat_h(softmax(Q_h K_h^T / sqrt(d_k)) V_h) + b_o,  Q = X W_q + b_q, ...

with d_k the tokens' width over the number of heads. Weights start as Xavier's (uniform; Glorot and
Bengio 2010), biases 0.
"""

import torch
from torch import nn


def attention(width: int, heads: int) -> nn.MultiheadAttention:
    """Make attention over tokens (n, t, width)."""
    layer = nn.MultiheadAttention(width, heads, batch_first=True)
    for weight in (*layer.in_proj_weight.detach().chunk(3), layer.out_proj.weight):
        nn.init.xavier_uniform_(weight)
    nn.init.zeros_(layer.in_proj_bias)
    nn.init.zeros_(layer.out_proj.bias)
    return layer


def attend(
    layer: nn.MultiheadAttention, queries: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Return what `queries` (n, q, width) find in `tokens` (n, t, width): (n, q, width)."""
    return layer(queries, tokens, tokens, need_weights=False)[0]


def maps(layer: nn.MultiheadAttention, tokens: torch.Tensor) -> torch.Tensor:
    """Return the weights (n, heads, t, t) that `tokens` (n, t, width) give each other.

    Row q of a map is what token q looks at; it sums to 1.
    """
    return layer(tokens, tokens, tokens, average_attn_weights=False)[1]


class FeedForward(nn.Module):
    """y = LayerNorm_2(r + W_2 ReLU(W_1 r)) with r = LayerNorm_1(x), over the last axis of x."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.kaiming_normal_(self.linear1.weight, nonlinearity="relu")
        nn.init.xavier_uniform_(self.linear2.weight)
        nn.init.zeros_(self.linear1.bias)
        nn.init.zeros_(self.linear2.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return y, of the shape of x."""
        r = self.norm1(x)
        return self.norm2(r + self.linear2(torch.relu(self.linear1(r))))
