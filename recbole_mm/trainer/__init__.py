"""The training loop of every model: epochs, checkpoints, and evaluation inside a run."""
