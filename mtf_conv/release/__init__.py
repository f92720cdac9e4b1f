"""The checkpoints of the authors' release: described and converted."""
