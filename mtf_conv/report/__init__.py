"""Tables and pictures from what finished runs have written.

Reads checkpoints and TensorBoard's event files alone, so that a run of the
stock T5 binary can be reported as well.
"""
