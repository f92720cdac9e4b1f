"""Matplotlib, drawing without a display."""

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot as plt  # noqa: F401, for others
from matplotlib import ticker  # noqa: F401
