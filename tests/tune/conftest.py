"""A shop small enough that a training takes less than a second."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def data(ninety_sessions: Path) -> Path:
    return ninety_sessions


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty sessions of thirty items with titles."""
    folder = tmp_path_factory.mktemp("shop")
    lines = ["session_id:token\titem_id:token\ttimestamp:float"]
    for session in range(60):
        lines += [
            f"s{session}\ti{(session + step) % 30}\t{1_600_000_000 + 1000 * session + step}"
            for step in range(3 + session % 2)
        ]
    titles = [f"i{item}\t{('red', 'blue', 'green')[item % 3]} {item}" for item in range(30)]
    for name in ("toy", "Amazon_Cellphones"):
        (folder / name).mkdir()
        (folder / name / f"{name}.inter").write_text("\n".join(lines) + "\n")
        (folder / name / f"{name}.item").write_text(
            "item_id:token\ttitle:token_seq\n" + "\n".join(titles) + "\n"
        )
    return folder
