"""Pre-trained convolutions for the T5 codebase."""

from mtf_conv import compat

__version__ = '0.1.0'

compat.install()
