"""The command line: how it is parsed, and what keeps quiet meanwhile."""

import argparse
import logging
import os
import re
import warnings

from mtf_conv.base import errors


class Parser(argparse.ArgumentParser):
  """argparse, telling what is wrong in one line with the nearest valid name."""

  def __init__(self, **kwargs):
    super().__init__(
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)

  def parse_args(self, args=None, namespace=None):
    """Parses; an unknown flag or a wrong value ends the program."""
    parsed, unknown = self.parse_known_args(args, namespace)
    if unknown:
      flag = unknown[0].split('=')[0]
      kind = 'flag' if flag.startswith('-') else 'argument'
      self.error(f'unknown {kind} {flag!r}'
                 + errors.nearest(flag, self._option_string_actions))
    return parsed

  def error(self, message):
    """Ends the program with one line."""
    choice = re.fullmatch(
        r"argument (.*): invalid choice: '(.*)' \(choose from (.*)\)", message)
    if choice:
      name, value, choices = choice.groups()
      choices = re.findall(r"'([^']*)'", choices)
      message = (f'unknown {name} {value!r}: choose from {", ".join(choices)}'
                 + errors.nearest(value, choices))
    self.exit(2, f'{self.prog}: {message}; --help says what there is\n')


def quiet():
  """Keeps what TensorFlow and TFDS log for their developers to themselves.

  To be called before TensorFlow is imported.
  """
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
  warnings.simplefilter('ignore')
  for name in ('absl', 'tensorflow'):
    logging.getLogger(name).setLevel(logging.ERROR)
