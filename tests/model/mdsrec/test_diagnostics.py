"""MDSRec's diagnostics against numbers worked out anew."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch


def test_choice_of_centres_and_injection(build, dataset):
    model = build(kappa_modal=3.0, n_centers=2)
    found = model.diagnostics([], [(dataset.inter_feat[:5],), (dataset.inter_feat[5:],)])
    assert set(found) == {
        "graph_kept_text", "graph_kept_image", "graph_overlap_text_image", "injection_ratio",
        "relation_entropy_text", "relation_entropy_image", "center_cosine_text",
        "center_cosine_image",
    }  # fmt: skip
    assert not model.training
    table = model.item_embedding.weight.detach()
    norms = model.injection(table).norm(dim=1)[1:] / table.norm(dim=1)[1:]
    assert found["injection_ratio"] == pytest.approx(float(norms.median()), rel=1e-5)
    assert 0 <= found["relation_entropy_text"] <= math.log(2)
    tables = model.item_tables()
    with torch.no_grad():
        session, centers = model.sessions(*model.inputs(dataset.inter_feat), tables)["text"]
        share = model.relation(session, centers)
    entropy = float(-(share * share.log()).sum(dim=1).mean())
    assert found["relation_entropy_text"] == pytest.approx(entropy, rel=1e-4)
    cosine = torch.nn.functional.cosine_similarity(centers[:, 0], centers[:, 1], dim=1).mean()
    assert found["center_cosine_text"] == pytest.approx(float(cosine), rel=1e-4)


def test_graphs_by_hand(build):
    model = build(use_cooc_modal=False)
    found = model.diagnostics([], [])
    assert found["graph_kept_text"] == found["graph_kept_image"] == 1.0
    text, image = (model.graphs[kind].neighbours.numpy() for kind in ("text", "image"))
    shared = [
        len((set(text[i]) & set(image[i])) - {i}) / 2 for i in (1, 2, 3, 4, 5, 7, 8)
    ]  # fmt: skip
    assert found["graph_overlap_text_image"] == pytest.approx(np.mean(shared))


def test_numbers_of_what_a_preset_lacks_are_left_out(build, dataset):
    assert build("id_only", use_cooc_id=False).diagnostics([], []) == {}
    rows = [(dataset.inter_feat,)]
    assert set(build("no_mrgc").diagnostics([], rows)) == {
        "injection_ratio", "relation_entropy_text", "relation_entropy_image",
        "center_cosine_text", "center_cosine_image",
    }  # fmt: skip
    assert not any("entropy" in name for name in build("no_ica").diagnostics([], rows))
