"""The paper's grid: its numbers, its jobs, a runner."""
