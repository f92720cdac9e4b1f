"""Matplotlib, drawing without a display."""

import os

# A notebook names its own backend to all that it starts, and where that is not
# installed matplotlib cannot even be imported.
os.environ['MPLBACKEND'] = 'Agg'

import matplotlib

matplotlib.use('Agg')  # It may have been imported before.
from matplotlib import pyplot as plt  # noqa: F401, for others
from matplotlib import ticker  # noqa: F401
