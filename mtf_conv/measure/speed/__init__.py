"""Speed on CPUs and GPUs, as ratios that are measured in turn."""
