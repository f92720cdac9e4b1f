"""Pre-trained convolutions for the T5 codebase."""

__version__ = '0.1.0'
