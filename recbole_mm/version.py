"""The version of this package; without imports, so that every module can ask for it."""

__version__ = "0.3.0.dev0"
