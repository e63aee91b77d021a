"""Sequence encoder of a stream, with interest centres along with it.

Symbols: ``B`` rows, ``T`` positions, ``k`` centres, ``d`` width.
"""

from __future__ import annotations

from collections.abc import Callable

from recbole.model.layers import TransformerEncoder, TransformerLayer
from torch import Tensor

from recbole_mm.model.layers import last_position
from recbole_mm.model.transformer import KeysValues, block_at, keys_values, masks

# Of a layer, centres, keys and values of the session, and where to look: the centres behind it.
CenterStep = Callable[[TransformerLayer, Tensor, KeysValues, Tensor], Tensor]


def encode_stream(
    encoder: TransformerEncoder,
    states: Tensor,
    lengths: Tensor,
    centers: Tensor | None = None,
    step: CenterStep = block_at,
) -> tuple[Tensor, Tensor | None]:
    """Encode sessions and, along with them, interest centres (MDSRec eq. 8-16).

    A position sees what stands before it; the centres see the whole session, in each layer what
    goes into it.

    Parameters
    ----------
    encoder
        RecBole's ``TransformerEncoder``.
    states
        Input vectors ``(B, T, d)``.
    lengths
        Real positions per row ``(B,)``, at least 1.
    centers
        First vectors of this stream's centres ``(k, d)``, the same for all rows, or None.
    step
        How centres pass a layer.

    Returns
    -------
    tuple
        Vectors at the last real position ``(B, d)``, and the centres ``(B, k, d)`` or None.
    """
    real, mask = masks(lengths, states.shape[1])
    for number, layer in enumerate(encoder.layer):
        seen = keys_values(layer, states)
        if number == len(encoder.layer) - 1:
            # What a position is in the last layer matters only at the end of the session.
            states, mask = last_position(states, lengths).unsqueeze(1), real
        states = block_at(layer, states, seen, mask)
        if centers is not None:
            centers = step(layer, centers, seen, real)
    return states.squeeze(1), centers
