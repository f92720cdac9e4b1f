"""Parameters, FLOPs and speed, and the pictures of them.

timing.py says how a ratio is measured, reference.py what a result is checked
against before it is timed, goals.py what the project asks of each ratio.
"""
