"""mtf_conv list: the models, tasks and gin files there are."""

import re

from mtf_conv.base import gin_files
from mtf_conv.prepare import available


def add_flags(parser):
  """Adds the flags; returns the function that does the work."""
  parser.add_argument(
      'kind', nargs='?', choices=['models', 'tasks', 'gin'],
      help='only these; all when it is not given')
  return lambda args: show(args.kind)


def models():
  """Lists the models.

  Returns:
    A list of (name, size, parameters as its gin file states them, gin file),
    the sizes of a model from small to large.
  """
  found = []
  for name, size, path in gin_files.models():
    stated = re.search(r'# ([\d,]+) parameters', gin_files.read(path))
    found.append((name, size, stated.group(1) if stated else '', path))
  return found


def gin_descriptions():
  """Lists the gin files as (path, first line of its comment)."""
  return [(path, gin_files.read(path).split('\n', 1)[0].lstrip('# '))
          for path in gin_files.list_gin_files()]


def show(kind=None):
  """Prints what there is.

  Args:
    kind: 'models', 'tasks' or 'gin'; all of them when None.
  """
  if kind in (None, 'models'):
    _print_table('Models', models(), numbers=(2,))
  if kind in (None, 'gin'):
    _print_table('gin files in ' + ', '.join(gin_files.folders()),
                 gin_descriptions())
  if kind in (None, 'tasks'):
    _print_table('Tasks and their data', [
        (name, 'ready' if there else 'not ready', text)
        for name, there, text in available.tasks()])


def _print_table(title, rows, numbers=()):
  widths = [max(map(len, column)) for column in zip(*rows)]
  print(f'{title}:')
  for row in rows:
    cells = (cell.rjust(width) if i in numbers else cell.ljust(width)
             for i, (cell, width) in enumerate(zip(row, widths)))
    print('  ' + '  '.join(cells).rstrip())
  print(flush=True)
