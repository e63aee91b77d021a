"""Interest of a session, by hand."""

from __future__ import annotations

import torch

from recbole_mm.model.mmsbr.interest import GatedSum, Interest
from recbole_mm.model.mmsbr.settings import MMSBRSettings

SESSION = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
EYE = torch.eye(2)
TWO, BOTH = torch.tensor([2]), torch.ones(1, 2, dtype=torch.bool)


def sized(size, **changes):
    return MMSBRSettings(embedding_size=size, n_heads=1, **changes)


def by_hand(kind, **changes):
    model = kind(sized(2, **changes), 3)
    with torch.no_grad():
        model.item.weight.copy_(EYE), model.mean.weight.copy_(EYE)
        model.item.bias.zero_(), model.gate.weight.fill_(1.0), model.gate.bias.zero_()
    return model


def test_gate_by_hand():
    model, seen = by_hand(GatedSum), {}
    model.gate.register_forward_hook(lambda m, i, out: seen.update(gate=out))
    result = model(SESSION, TWO, BOTH)
    torch.testing.assert_close(seen["gate"].flatten(), torch.tensor([1.548633, 1.575033]))
    torch.testing.assert_close(result, torch.tensor([[1.548633, 3.150067]]))


def test_padding_and_order_do_not_count():
    model = by_hand(GatedSum)
    result = model(SESSION, TWO, BOTH)
    padded = torch.cat([SESSION, torch.full((1, 1, 2), 9.0)], dim=1)
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(model(padded, TWO, mask), result)
    torch.testing.assert_close(model(SESSION.flip(1), TWO, BOTH), result)


def test_the_last_item_is_added_and_the_map_comes_last():
    """The sum (1.548633, 3.150067) plus the last item (0, 2), then swapped and shifted."""
    model = by_hand(Interest)
    with torch.no_grad():
        model.map.weight.copy_(torch.tensor([[0.0, 1.0], [3.0, 0.0]]))
        model.map.bias.copy_(torch.tensor([1.0, 10.0]))
    expected = torch.tensor([[6.150067, 14.645899]])
    torch.testing.assert_close(model(SESSION, TWO, BOTH), expected)
    padded = torch.cat([SESSION, torch.full((1, 1, 2), 9.0)], dim=1)
    found = model(padded, TWO, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(found, expected)


def test_scores_start_with_a_spread_of_about_one():
    torch.manual_seed(0)
    model = Interest(sized(64), 3)
    model.reset()
    normed = torch.nn.functional.layer_norm(torch.randn(500, 3, 64), (64,))
    lengths, mask = torch.full((500,), 3), torch.ones(500, 3, dtype=torch.bool)
    scores = (model(normed, lengths, mask) * normed[:, 0]).sum(dim=1)
    assert 0.3 < scores.std().item() < 3.0


def test_positions_add_to_the_gates_and_padding_has_none():
    """Gates (1.548633, 1.575033), plus (place 0, age 1) = 10 + 2 and (place 1, age 0) = 20 + 1."""
    model = by_hand(Interest, position_weights=True, session_map="residual")
    with torch.no_grad():
        model.positions.age.copy_(torch.tensor([1.0, 2.0, 4.0]))
        model.positions.place.copy_(torch.tensor([10.0, 20.0, 40.0]))
    # The sum, plus the last item (0, 2); the map adds 0 before training.
    expected = torch.tensor([[13.548633, 2 * 22.575033 + 2.0]])
    torch.testing.assert_close(model(SESSION, TWO, BOTH), expected)
    padded = torch.cat([SESSION, torch.full((1, 1, 2), 9.0)], dim=1)
    found = model(padded, TWO, torch.tensor([[True, True, False]]))
    torch.testing.assert_close(found, expected)
