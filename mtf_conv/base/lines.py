"""Lines of text files, each error with the file and the number of the line."""

import gzip
import json
import sys

from mtf_conv.base import errors, files

STANDARD = '-'  # The path that stands for standard input or output.


def read(path):
  r"""Reads a text file in UTF-8, line by line.

  A line ends at `\n` or `\r\n`, and nowhere else. A byte order mark is no
  part of the first one.

  Args:
    path: the file, which may be compressed (`.gz`); '-' for standard input.

  Yields:
    (number, line), the number from 1, the line without its end.

  Raises:
    errors.UserError: the file cannot be read, or a line is not UTF-8.
  """
  number = 0
  try:
    with _open(path) as f:
      for number, line in enumerate(f, start=1):
        encoding = 'utf-8-sig' if number == 1 else 'utf-8'
        yield number, line.decode(encoding).rstrip('\r\n')
  except UnicodeDecodeError as error:
    raise errors.UserError(
        f'{path}:{number}: not UTF-8: byte 0x{error.object[error.start]:02x} '
        f'at column {error.start + 1}') from error
  except FileNotFoundError as error:
    raise errors.UserError(f'{path}: there is no such file') from error
  except (OSError, EOFError) as error:
    raise errors.UserError(f'{path}: cannot be read after line {number}: '
                           f'{error}') from error


def _open(path):
  if path == STANDARD:
    return open(sys.stdin.fileno(), 'rb', closefd=False)
  return (gzip.open if path.endswith('.gz') else files.opened)(path, 'rb')


def json_object(line, names, place):
  """Parses a line that is an object of JSON with some fields that are strings.

  Args:
    line: the line.
    names: of these fields.
    place: what an error begins with, such as 'FILE:3'.

  Returns:
    A dictionary.

  Raises:
    errors.UserError: it is something else, or lacks one of the fields.
  """
  try:
    found = json.loads(line)
  except (ValueError, RecursionError) as error:
    raise errors.UserError(f'{place}: not JSON: {error}') from error
  for name in names:
    if not isinstance(found, dict):
      raise errors.UserError(
          f'{place}: expected an object with the field {name!r}, found '
          f'{type(found).__name__}')
    if name not in found:
      raise errors.UserError(
          f'{place}: no field {name!r} among {sorted(found)}'
          + errors.nearest(name, found))
    if not isinstance(found[name], str):
      raise errors.UserError(
          f'{place}: the field {name!r} must be a string, found '
          f'{type(found[name]).__name__}')
  return found
