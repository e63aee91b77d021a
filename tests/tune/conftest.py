"""A shop small enough that a training takes less than a second."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    lines = ["session_id:token\titem_id:token\ttimestamp:float"]
    for session in range(90):
        for step in range(2 + session % 4):
            seconds = 1_600_000_000 + 1000 * session + 60 * step
            lines.append(f"s{session}\ti{(session + step * (1 + session % 3)) % 25}\t{seconds}")
    (folder / "toy").mkdir()
    (folder / "toy" / "toy.inter").write_text("\n".join(lines) + "\n")
    return folder
