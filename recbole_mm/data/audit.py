"""Leak audit: training must not know what evaluation asks.

Run before every training and by ``recbole-mm audit``. It checks what can be checked from the data:

* a whole session, and so each of its targets, stands in one part only (leave-one-out: the training
  part of a session ends before its held-out items);
* with a split by time, training ends before validation ends before the test begins to end;
* what models fit before training (``train_sessions``, ``train_counts``) holds training rows only.

That graphs and statistics are functions of ``train_sessions`` alone is a property of the code and
is tested there: permuting the test rows leaves them equal bit by bit.
"""

from __future__ import annotations

import numpy as np

from recbole_mm.data.session_dataset import SessionDataset, feature_files
from recbole_mm.data.sessions import Sessions
from recbole_mm.data.sidecar import check_sidecar
from recbole_mm.errors import DataError

_PAIRS = (("train", "valid"), ("train", "test"), ("valid", "test"))


def audit(dataset: SessionDataset) -> list[str]:
    """Check a built data set for leaks.

    Returns
    -------
    list of str
        One sentence per check that was passed.

    Raises
    ------
    DataError
        Naming the first leak found and an example.
    """
    checks = [_check_whole if dataset.split.whole else _check_held_out]
    checks += [_check_targets, _check_fitted]
    if dataset.config["split_by"] == "session_time":
        checks.append(_check_time)
    return [check(dataset) for check in checks]


def _check_whole(dataset: SessionDataset) -> str:
    parts = dataset.split.parts()
    for first, second in _PAIRS:
        shared = np.intersect1d(parts[first].session, parts[second].session)
        if len(shared):
            token = dataset.session_tokens(shared[:1])[0]
            raise DataError(f"Leak: session {token} stands in {first} and in {second}.")
    return "no session stands in two parts"


def _check_held_out(dataset: SessionDataset) -> str:
    """Leave-one-out: a session must be longer in a later part than in an earlier one."""
    lengths = {}
    for name, part in dataset.split.parts().items():
        lengths[name] = np.zeros(dataset.user_num, np.int64)
        lengths[name][part.session] = part.lengths()
    for first, second in _PAIRS:
        later = dataset.split.parts()[second].session
        known = later[lengths[first][later] >= lengths[second][later]]
        if len(known):
            token = dataset.session_tokens(known[:1])[0]
            raise DataError(f"Leak: the {second} target of session {token} stands in {first}.")
    return "each session's held-out items come after its training items"


def _check_targets(dataset: SessionDataset) -> str:
    """No (session, position) is a target in two parts; position = number of items before it."""
    keys = {
        name: _target_keys(part, name == "train" and dataset.config["train_prefixes"])
        for name, part in dataset.split.parts().items()
    }
    for first, second in _PAIRS:
        shared = np.intersect1d(keys[first], keys[second])
        if len(shared):
            token = dataset.session_tokens((shared[:1] >> 32).astype(np.int64))[0]
            raise DataError(f"Leak: a target of session {token} stands in {first} and {second}.")
    return "no target stands in two parts"


def _target_keys(part: Sessions, prefixes: bool) -> np.ndarray:
    """Return ``session * 2**32 + position`` of each target of a part."""
    last = part.lengths() - 1
    if not prefixes:
        return (part.session << 32) + last
    position = np.arange(last.sum()) - np.repeat(np.cumsum(last) - last, last) + 1
    return (np.repeat(part.session, last) << 32) + position


def _check_fitted(dataset: SessionDataset) -> str:
    """Training rows and counts must come from the training sessions."""
    rows = dataset.rows("train")
    if not np.isin(rows.session, dataset.train_sessions.session).all():
        raise DataError("Leak: a training row belongs to a session outside the training part.")
    counts = np.bincount(dataset.train_sessions.items, minlength=dataset.item_num)
    if not np.array_equal(counts, dataset.train_counts):
        raise DataError("Leak: item counts were taken from other than the training sessions.")
    return "what is fitted before training sees training sessions only"


def _check_time(dataset: SessionDataset) -> str:
    last = [part.last_time for part in dataset.split.parts().values()]
    for name, earlier, later in zip(("valid", "test"), last[:-1], last[1:], strict=True):
        if earlier.max() > later.min():
            raise DataError(f"Leak: the part before {name} ends later than {name} begins to end.")
    return "parts follow one another in time"


def data_sheet(dataset: SessionDataset) -> str:
    """Return what a reader should know of the data and its split, as lines of text."""
    card = dataset.card
    kind = "SYNTHETIC, " if card.synthetic else ""
    lines = [
        f"data set     {card.name} ({kind}timestamps {card.timestamps})",
        f"source       {card.source or 'not stated (no dataset.json)'}",
        f"licence      {card.licence or 'not stated'}",
        f"protocol     {dataset.config['split_by']}, fingerprint {dataset.fingerprint()[:16]}",
    ]
    lines += [f"{name.replace('_', ' '):<28}{count}" for name, count in dataset.counts.items()]
    lines += _repeats(dataset)
    lines += [f"passed: {sentence}" for sentence in [*audit(dataset), *_check_copies(dataset)]]
    return "\n".join(lines)


def _check_copies(dataset: SessionDataset) -> list[str]:
    """Read feature files and their binary copies whole, which a run only samples."""
    files = feature_files(dataset.config).paths().values()
    names = [path.name for path in files if check_sidecar(path)]
    return [f"the binary copy of {name} is that of its text, byte by byte" for name in names]


def _repeats(dataset: SessionDataset) -> list[str]:
    """Say how often sessions repeat an item, and what follows for the protocol."""
    share = float(dataset.train_sessions.repeating().mean())
    lines = [f"{'sessions with repeated items':<29}{share:.2%} of training"]
    found = {part: dataset.rows(part).target_in_history() for part in ("valid", "test")}
    shares = [f"{hits.mean():.2%} of {part}" for part, hits in found.items() if len(hits)]
    lines += [f"{'rows with target in history':<29}{', '.join(shares)}"]
    if not share:
        lines += [
            "no training session repeats an item: --history=mask strikes the items of the history "
            "out of the candidates, for every model"
        ]
    return lines
