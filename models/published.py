"""The author's published weights under our networks' names.

Sun (2023) published one CNN and one Conv SC; their tensors map onto ours one to one. Read the
checkpoint with whatever wrote it, give its state as arrays, and get the network:

    net = published.network({name: array for name, array in state.items()})

Both are of 4023 points and two classes, for patterns after asymmetric least squares that are not
normalised.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from phasewatch.models.errors import ModelError
from phasewatch.models.registry import create

N_POINTS = 4023
# Theirs to ours; parameters go by the same name in both.
CNN = {
    "LayerNorm": "0",
    **{f"conv{k}.{i}": str(4 * k - 2 + i) for k in (1, 2, 3) for i in (0, 1)},
    "fc1.0": "15",
    "fc1.1": "16",
}
CONV_SC = {
    "conv1": "branch.conv1",
    "conv3": "branch.conv2",
    "embeding": "branch.fusion.embedding",
    "MultiHeadAttention": "branch.fusion.spatial",
    "C_Attention_F": "branch.fusion",
    "LayerNorm": "branch.fusion.norm",
    "dec_conv3": "branch.fusion.conv3",
    "fc1.0": "head",
}
# Counted, but never called: still what it was before training. Our option leaves it out.
FEED_FORWARD = {k: f"feed_forward.{k}" for k in ("linear1", "linear2", "norm1", "norm2")}


def network(state: Mapping[str, Any], *, feed_forward: bool = False) -> nn.Module:
    """Return the network, in evaluation mode, that has the published `state`.

    Parameters
    ----------
    state
        Name to array or tensor; a CNN of either pooling, or Conv SC.
    feed_forward
        Of Conv SC: whether to use the untrained feed-forward, too. Without, the network computes
        what the published one does in evaluation mode.

    Raises
    ------
    ModelError
        A tensor is missing, unknown or of another shape; names it.
    """
    options: dict[str, Any]
    if "C_Attention_F.gamma" in state:
        name, options = "conv-sc", {"feed_forward": feed_forward, "standardise": False}
        table = {**CONV_SC, **FEED_FORWARD}
    else:
        features = len(state["fc1.0.weight"]) if "fc1.0.weight" in state else 0
        name, options, table = "cnn", {"pools": (2, 3 if features == 328 else 2, 2)}, CNN
    net = create(name, n_points=N_POINTS, n_classes=2, **options)
    own, given = net.state_dict(), {}
    for theirs, value in state.items():
        prefix = max((p for p in table if theirs.startswith(f"{p}.")), key=len, default=None)
        if prefix is None:
            raise ModelError(f"published {name}: tensor {theirs} is not known")
        if prefix in FEED_FORWARD and name == "conv-sc" and not feed_forward:
            continue
        ours = table[prefix] + theirs.removeprefix(prefix)
        tensor = torch.as_tensor(np.asarray(value))
        if ours not in own or tensor.shape != own[ours].shape:
            wanted = f"not {tuple(own[ours].shape)}" if ours in own else "not known"
            raise ModelError(f"published {name}: tensor {theirs}: {tuple(tensor.shape)}, {wanted}")
        given[ours] = tensor
    if absent := sorted(set(own) - set(given)):
        raise ModelError(f"published {name}: nothing for our tensor {absent[0]}")
    net.load_state_dict(given)
    return net.eval()
