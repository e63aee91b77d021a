"""Packs: equal bits without the training data, and what refuses to be one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from filelock import FileLock
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import nn

from recbole_mm import cli, register_model
from recbole_mm.errors import CheckpointError, ConfigError, DataError, MMError
from recbole_mm.files import sha256_file
from recbole_mm.serve.recommender import Recommender

MODELS = ["SRIM", "AlterRec", "MMSBR", "MDSRec", "Counting", "ContentKNN", "SessionKNN", "Pop"]
MODELS += ["SASRec", "SASRecF", "FPMC"]


def test_a_leaky_preset_is_packed_and_says_so(trained, tmp_path) -> None:
    recommender = Recommender.load(trained("SRIM", preset="official_leaky", embedding_size=16))
    pack = Recommender.load(recommender.pack(tmp_path / "pack"))
    found = [one.recommend([["i0003", "i0017"]], 5) for one in (recommender, pack)]
    assert found[0] == found[1]
    assert "LEAKY" in (tmp_path / "pack" / "README.md").read_text()


@pytest.mark.parametrize("model", [*MODELS, "SASRec with parts"])
def test_a_pack_scores_as_its_run_bit_by_bit(model, trained, packed) -> None:
    model, _, more = model.partition(" ")
    keys = {"score_parts": ["transitions", "own_items"]} if more else {}
    run, pack = (Recommender.load(folder(model, **keys)) for folder in (trained, packed))
    sessions = [[1 + (5 * k + j) % 60 for j in range(1 + k % 7)] for k in range(40)]
    left = run.scorer.scores(run.scorer.rows(sessions))
    right = pack.scorer.scores(pack.scorer.rows(sessions))
    assert torch.equal(left, right)
    assert left[:, 1:].isfinite().all() and left[:, 1:].std() > 0
    assert run.items.tokens == pack.items.tokens
    asked = [[run.items.tokens[item] for item in session] for session in sessions]
    assert run.recommend(asked, 7, parts=True) == pack.recommend(asked, 7, parts=True)


_ALONE = """
import sys, json
from recbole_mm.serve.recommender import Recommender
found = Recommender.load(sys.argv[1]).recommend([["i0003", "i0017"]], 5)[0]
print(json.dumps([found.items, found.scores]))
"""


def test_another_process_restores_it_from_nothing_but_its_folder(packed, trained, tmp_path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(packed("SRIM"), moved)
    done = subprocess.run(
        [sys.executable, "-c", _ALONE, str(moved)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    here = Recommender.load(trained("SRIM")).recommend([["i0003", "i0017"]], 5)[0]
    assert json.loads(done.stdout.splitlines()[-1]) == [here.items, here.scores]


def test_no_session_is_in_a_pack(packed) -> None:
    """SessionKNN is made of sessions; a model that learns keeps none, not even their names."""
    for file in packed("SRIM").iterdir():
        assert b"s0001" not in file.read_bytes(), file
    restored = Recommender.load(packed("SRIM")).restored
    assert len(restored.dataset.train_sessions) == 0


def test_the_card_tells_data_protocol_metrics_and_limits(packed, trained) -> None:
    card = json.loads((packed("SRIM") / "card.json").read_text())
    record = json.loads((trained("SRIM") / "result.json").read_text())
    assert card["test"] == record["test"] and card["valid"] == record["valid"]
    assert card["fingerprint"] == record["fingerprint"]
    assert card["data"]["synthetic"] is True and card["marks"] == ["SYNTHETIC"]
    assert card["protocol"]["split_by"] == "session_time"
    page = (packed("SRIM") / "README.md").read_text()
    assert f"| hit@10 | {record['valid']['hit@10']:.4f} | {record['test']['hit@10']:.4f} |" in page
    assert "knows 60 items" in page


def _first_clicks(dataset) -> torch.Tensor:
    counts = torch.zeros(dataset.item_num)
    counts[torch.from_numpy(dataset.train_sessions.items[:50])] = 1.0
    return counts


@register_model("CountsByItself")
class CountsByItself(SequentialRecommender):
    """Counts when it is built, and keeps it from everybody."""

    input_type = InputType.POINTWISE

    def __init__(self, config, dataset) -> None:
        super().__init__(config, dataset)
        self.table = nn.Embedding(self.n_items, 8, padding_idx=0)
        self.counts = self.count(dataset)

    def count(self, dataset) -> torch.Tensor:
        return _first_clicks(dataset)

    def full_sort_predict(self, interaction):
        last = interaction[self.ITEM_SEQ][:, 0]
        return self.table(last) @ self.table.weight.T + self.counts

    def calculate_loss(self, interaction):
        return F.cross_entropy(self.full_sort_predict(interaction), interaction[self.ITEM_ID])


@register_model("NeedsSessions")
class NeedsSessions(CountsByItself):
    """Cannot be built without a session."""

    def count(self, dataset) -> torch.Tensor:
        return torch.zeros(dataset.item_num) + dataset.train_sessions.items[0]


@register_model("CountsInTheOpen")
class CountsInTheOpen(CountsByItself):
    """Counts by the data set, which keeps what was counted."""

    def count(self, dataset) -> torch.Tensor:
        return dataset.fitted("first clicks", lambda: _first_clicks(dataset))


def test_a_model_that_counts_unseen_is_refused_and_told_how_to_mend_it(trained, tmp_path) -> None:
    with pytest.raises(CheckpointError, match=r"dataset\.fitted\("):
        Recommender.load(trained("CountsByItself")).pack(tmp_path / "pack")
    with pytest.raises(CheckpointError, match="cannot be built without the training data"):
        Recommender.load(trained("NeedsSessions")).pack(tmp_path / "pack")
    assert [file.name for file in tmp_path.iterdir()] == [".pack.lock"]
    made = Recommender.load(trained("CountsInTheOpen")).pack(tmp_path / "pack")
    assert Recommender.load(made).recommend([["i0003"]], 3)


def test_a_user_based_model_is_refused(trained, tmp_path) -> None:
    folder = trained("BPR", split_by="leave_one_out", embedding_size=8)
    with pytest.raises(ConfigError, match="cannot recommend to a new one"):
        Recommender.load(folder)


def test_a_damaged_pack_is_named(packed, tmp_path) -> None:
    for name, message in (
        ("model.safetensors", "missing or damaged"),
        ("items.json", "missing or damaged"),
        ("pack.json", "no pack of this version"),
    ):
        copy = tmp_path / name
        shutil.copytree(packed("SASRec"), copy)
        data = (copy / name).read_bytes()
        (copy / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(CheckpointError, match=message):
            Recommender.load(copy)


def test_a_pack_replaces_a_pack_and_nothing_else(packed, trained, tmp_path) -> None:
    recommender = Recommender.load(trained("SASRec"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(CheckpointError, match="holds something that is no pack"):
        recommender.pack(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    for _ in range(2):
        recommender.pack(tmp_path / "new")
    there = sorted(file.name for file in tmp_path.iterdir())
    assert there == [".new.lock", "mine", "new"]
    with pytest.raises(CheckpointError, match="is a pack already"):
        Recommender.load(packed("SASRec")).pack(tmp_path / "again")


def test_what_a_killed_pack_left_serves_and_goes(packed, trained, tmp_path) -> None:
    """As if killed between the two renames, with the new pack in a folder of its own."""
    target = tmp_path / "pack"
    shutil.copytree(packed("SASRec"), tmp_path / ".pack.old")
    shutil.copytree(packed("SASRec"), tmp_path / ".pack.abcd1234" / "pack")
    assert Recommender.load(target).recommend([["i0003"]], 3)
    Recommender.load(trained("SASRec")).pack(target)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".pack.lock", "pack"]


def test_two_that_pack_at_once_are_kept_apart(trained, tmp_path) -> None:
    recommender = Recommender.load(trained("SASRec"))
    with FileLock(tmp_path / ".pack.lock"), pytest.raises(CheckpointError, match="is packing"):
        recommender.pack(tmp_path / "pack")
    assert recommender.pack(tmp_path / "pack").is_dir()


def test_settings_that_changed_and_other_items_are_named(packed, tmp_path) -> None:
    copy = tmp_path / "pack"
    shutil.copytree(packed("SASRec"), copy)
    description = json.loads((copy / "pack.json").read_text())
    description["config"]["hidden_size"] = 10**9
    (copy / "pack.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match="settings are not those that were packed"):
        Recommender.load(copy)
    shutil.copy(packed("SASRec") / "pack.json", copy)
    (copy / "items.json").write_text('{"ids": ["[PAD]", "a"], "titles": ["", ""]}')
    description = json.loads((copy / "pack.json").read_text())
    description["sha256"]["items.json"] = sha256_file(copy / "items.json")
    (copy / "pack.json").write_text(json.dumps(description))
    with pytest.raises(CheckpointError, match=r"items\.json does not hold 61 ids"):
        Recommender.load(copy)


def test_commands_answer_bad_input_in_one_line(packed, tmp_path, capsys) -> None:
    pack = str(packed("SASRec"))
    sessions = tmp_path / "s.csv"
    sessions.write_text("session_id,item_id\na,i0001\n")
    wrong = [
        ["pack", "--run=nowhere", f"--output={tmp_path / 'p'}"],
        ["pack", f"--run={pack}", f"--output={tmp_path / 'p'}"],
        ["pack", f"--run={pack}", f"--output={tmp_path / 'p'}", "--epochs=3"],
        ["recommend", f"--run={pack}", f"--sessions={tmp_path / 'none.csv'}"],
        ["recommend", f"--run={pack}", f"--sessions={sessions}", "--output=x.xlsx"],
        ["recommend", f"--run={pack}", f"--sessions={sessions}", "--topk=0"],
        ["recommend", f"--run={pack}", f"--sessions={sessions}", "--keep_to=nothing known"],
    ]
    for command in wrong:
        assert cli.main(command) == 2, command
        shown = capsys.readouterr()
        assert shown.err.startswith("error: ") and shown.err.count("\n") == 1, shown.err
        assert shown.out.count("\n") <= 1


def test_errors_are_ours() -> None:
    assert issubclass(CheckpointError, MMError) and issubclass(DataError, MMError)
