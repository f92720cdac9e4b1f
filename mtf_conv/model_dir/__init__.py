"""The folder of a run: its checkpoints, its record, its event files."""
