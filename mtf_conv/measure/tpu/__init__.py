"""TPUs: what a core holds, which slice fits, what XLA runs."""
