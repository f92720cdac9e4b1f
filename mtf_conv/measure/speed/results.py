"""Measured ratios as a table, a CSV file and a picture."""

import os

import pandas as pd

from mtf_conv.base import machine
from mtf_conv.measure.speed import goals

COLUMNS = ['name', 'ratio', 'low', 'high', 'required', 'hoped', 'met',
           'milliseconds', 'milliseconds_of_other']


def rows(case, times, pairs) -> list[dict]:
  """Compares candidates that were timed together.

  Args:
    case: what all of them compute.
    times: the timing.Times.
    pairs: (numerator, denominator), names of candidates.

  Returns:
    A row for each pair: a dict with the keys COLUMNS.
  """
  return [row(f'{case}: {numerator} / {denominator}',
              *times.ratio(numerator, denominator),
              1e3 * times.median(numerator), 1e3 * times.median(denominator))
          for numerator, denominator in pairs]


def row(name, ratio, low=None, high=None, milliseconds=None,
        milliseconds_of_other=None) -> dict:
  """Returns one row of the table, set beside its goal."""
  goal = goals.GOALS.get(name)
  return dict(zip(COLUMNS, [
      name, ratio, low, high,
      *(_bounds(goal) + [goal.met(ratio)] if goal else ['', '', '']),
      milliseconds, milliseconds_of_other]))


def _bounds(goal):
  return [f'{goal.sense} {bound:g}' if bound is not None else ''
          for bound in (goal.required, goal.hoped)]


def to_text(rows) -> str:
  """Returns the table as lines: ratio, its quartiles, and its goal."""
  cells = [('', 'ratio', 'quartiles', 'required', 'hoped', 'met')]
  cells += [(r['name'], f'{r["ratio"]:#.3g}', _quartiles(r), r['required'],
             r['hoped'], r['met']) for r in rows]
  widths = [max(map(len, column)) for column in zip(*cells)]
  return ''.join(
      '  '.join([name.ljust(widths[0])] + [
          cell.rjust(width) for cell, width in zip(rest, widths[1:])]).rstrip()
      + '\n' for name, *rest in cells)


def _quartiles(r):
  return '' if pd.isna(r['low']) else f'{r["low"]:#.3g}-{r["high"]:#.3g}'


def write(rows, out_dir, name):
  """Writes <name>.csv and <name>.png.

  Args:
    rows: what `rows` returned, of all cases.
    out_dir: a folder, which is made if need be.
    name: the name of both files.
  """
  os.makedirs(out_dir, exist_ok=True)
  frame = pd.DataFrame(rows, columns=COLUMNS)
  frame['machine'] = machine.describe()
  frame.to_csv(os.path.join(out_dir, f'{name}.csv'), index=False,
               float_format='%.4g')
  from mtf_conv.measure import figures
  figures.ratios(os.path.join(out_dir, f'{name}.png'), frame)
