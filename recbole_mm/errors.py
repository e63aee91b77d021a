"""Errors a user can mend.

Each message says what is wrong, where, what was expected and how to mend it.
The command line prints the message and ends with exit code 2.
"""

from __future__ import annotations


class MMError(Exception):
    """Base of every error that recbole_mm raises on purpose."""


class ConfigError(MMError):
    """A configuration key, value, preset or model name is wrong."""


class DataError(MMError):
    """An atomic file or a split of it is wrong."""


class FeatureError(MMError):
    """A feature file is wrong, stale, or does not fit the items."""


class EncodeError(MMError):
    """An encoder, or something it needs, is missing or failed."""


class NothingEncodedError(EncodeError):
    """An encoder made no vector of any of the contents it was given."""


class CheckpointError(MMError):
    """A checkpoint is missing, damaged, or belongs to another run."""


class ProcessError(MMError):
    """Another process of the same run has ended."""


class TrainingError(MMError):
    """Training cannot go on, for example because the loss is not finite."""
