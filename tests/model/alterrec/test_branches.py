"""Item vectors and session encoders of AlterRec, and the weights they start with."""

from __future__ import annotations

import math

import pytest
import torch
from recbole.model.layers import TransformerEncoder

from recbole_mm.model.alterrec import branches as parts
from recbole_mm.model.alterrec.model import AlterRec


def test_mean_session_and_item_norm():
    vectors = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [9.0, 9.0]]])
    query = parts.MeanSession()(vectors, torch.tensor([2]))
    assert query.tolist() == [[1.0, 0.5]]
    table = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert (query @ table.T).tolist() == [[1.0, 0.5, 1.5]]
    items = parts.IdItems(2, 4)
    items.table.weight.data[1] = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = [-1.3416355, -0.4472118, 0.4472118, 1.3416355]
    assert items()[1].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("encoder", ["transformer", "mean"])
def test_padding_and_what_comes_later_do_not_matter(build, encoder):
    model = build(id_session_encoder=encoder, text_session_encoder=encoder).eval()
    lengths = torch.tensor([2, 2, 2])
    rows = torch.tensor([[7, 3, 0, 0, 0, 0], [7, 3, 5, 0, 0, 0], [7, 3, 1, 8, 2, 4]])
    for branch in model.branches.values():
        table = branch.table()
        wide = branch.query(table, rows, lengths)
        narrow = branch.query(table, rows[:1, :2], lengths[:1])
        assert torch.allclose(wide, narrow.expand_as(wide), atol=1e-6)
        # The last item is the second position, not the last column.
        turned = branch.query(table, torch.tensor([[3, 7]]), lengths[:1])
        assert torch.allclose(turned, narrow, atol=1e-3) == (encoder == "mean")


@pytest.mark.parametrize("how", ["uniform", "normal"])
@pytest.mark.parametrize("temperatures", ["released", "automatic"])
def test_first_scores(settings, make_dataset, how, temperatures):
    n_items = 5_001
    generator = torch.Generator().manual_seed(1)
    features = torch.nn.functional.normalize(torch.randn(n_items, 64, generator=generator))
    data = make_dataset([[1, 2]], n_items, features={"text": features})
    changes = {"hidden_size": 300, "inner_size": 1_200, "parameter_init": how}
    if temperatures == "released":
        changes |= {"id_temperature": 1.0, "text_temperature": 0.07}
    torch.manual_seed(4)
    model = AlterRec(settings("AlterRec", **changes), data).eval()
    item_seq = torch.randint(1, n_items, (64, 6), generator=generator)
    rows = {"item_id_list": item_seq, "item_length": torch.full((64,), 6)}
    target = torch.randint(0, n_items - 1, (64,), generator=generator)
    for scores in model.score_parts(rows).values():
        loss = torch.nn.functional.cross_entropy(scores[:, 1:], target).item()
        if how == "uniform":
            assert abs(loss - math.log(5_000)) < 0.1
        elif temperatures == "automatic":
            # Scores of unit spread, but up to sqrt(d) for the session's own last item.
            assert abs(loss - math.log(5_000)) < math.sqrt(300)
        else:
            assert loss > 100


@pytest.mark.parametrize("n_layers", [1, 3])
def test_the_transformer_is_recboles(build, n_layers):
    model = build(n_layers=n_layers).eval()
    rows = torch.tensor([[7, 3, 5, 1], [2, 2, 0, 0], [4, 0, 0, 0]])
    lengths = torch.tensor([4, 2, 1])
    for branch in model.branches.values():
        session = branch.session
        assert isinstance(session.encoder, TransformerEncoder)
        assert len(session.encoder.layer) == n_layers
        items = branch.table()[rows]
        hidden = session.norm(items + session.positions.weight[:4])
        seen = torch.arange(4) < lengths.unsqueeze(1)
        seen = seen.unsqueeze(1) & torch.ones(4, 4, dtype=torch.bool).tril()
        mask = torch.where(seen, 0.0, -1e9).unsqueeze(1)
        whole = session.encoder(hidden, mask)[-1]
        last = whole[torch.arange(3), lengths - 1]
        assert torch.allclose(session(items, lengths), last, atol=1e-5)


def test_first_weights(settings, dataset):
    def weights(**changes):
        torch.manual_seed(2)
        changes |= {"hidden_size": 64, "inner_size": 128, "hard_negative_start_rank": 1}
        return dict(AlterRec(settings("AlterRec", **changes), dataset).named_parameters())

    uniform = weights(parameter_init="uniform")
    for name, weight in uniform.items():
        flat = weight if "items.table" not in name else weight[1:]
        assert flat.abs().max().item() <= 64**-0.5, name
        assert flat.std().item() == pytest.approx(64**-0.5 / math.sqrt(3), rel=0.3), name
    normal = weights(parameter_init="normal")
    assert bool((normal["branches.id.items.norm.weight"] == 1).all())
    assert bool((normal["branches.text.items.project.bias"] == 0).all())
    assert normal["branches.id.items.table.weight"][1:].std().item() == pytest.approx(0.02, rel=0.2)
    for found in (uniform, normal):
        assert bool((found["branches.id.items.table.weight"][0] == 0).all())
