"""Table 2: ours, the paper's, and the difference."""

from typing import NamedTuple, Optional

import numpy as np
import pandas as pd

from mtf_conv.base import markdown
from mtf_conv.replicate import paper

MISSING = '-'
PARTS = {'raw': 'no pre-training', 'pretrained': 'with pre-training'}


class Cell(NamedTuple):
  """What stands in one place of the table, as text; None for nothing.

  Attributes:
    ours: a score or a gain in percent.
    error: the standard error, over rows and seeds.
    paper: the paper's.
    difference: of ours to the paper's.
    best: whether ours is the best of its part of the column.
  """

  ours: Optional[str] = None
  error: Optional[str] = None
  paper: Optional[str] = None
  difference: Optional[str] = None
  best: bool = False


def columns(cells):
  """Returns the (task, metric) there are: the paper's in its order first."""
  found = list(dict.fromkeys(zip(cells.task, cells.metric)))
  return sorted(found, key=lambda c: (
      paper.COLUMNS.index(c) if c in paper.COLUMNS else len(paper.COLUMNS)))


def models(cells):
  """Returns the models there are: the paper's in its order first."""
  return paper.in_order(cells.model)


def arrange(cells):
  """Arranges cells as the paper's table.

  Args:
    cells: as scores.cells returns them.

  Returns:
    A dict from the parts of the table, without pre-training, with it, and what
    it gains (relative, in percent, as the paper's), to a dict from models to a
    list of Cells, one for each of `columns`.
  """
  by_place = {(c.init, c.model, c.task, c.metric): c
              for c in cells.itertuples()}
  places = columns(cells)
  parts = {}
  for init, part in PARTS.items():
    best = [np.nanmax([-np.inf] + [
        c.ours for (i, _, *p), c in by_place.items()
        if (i, tuple(p)) == (init, place)]) for place in places]
    parts[part] = {
        model: [_score(by_place.get((init, model, *place)), most)
                for place, most in zip(places, best)]
        for model in models(cells)}
  parts['gain, %'] = {
      model: [_gain(*(by_place.get((init, model, *place)) for init in PARTS))
              for place in places]
      for model in models(cells)}
  return parts


def _score(cell, best):
  if cell is None:
    return Cell()
  return Cell(_number(cell.ours, '.2f'), _number(cell.error, '.2f'),
              _number(cell.paper, '.2f'), _number(cell.difference, '+.2f'),
              cell.ours == best)


def _gain(raw, pretrained):
  if raw is None or pretrained is None:
    return Cell()
  return Cell(
      _number(paper.gain(raw.ours, pretrained.ours), '+.1f'),
      paper=_number(paper.gain(raw.paper, pretrained.paper), '+.1f'))


def _number(value, form):
  return None if np.isnan(value) else format(value, form)


def to_frame(cells):
  """Writes the table as text.

  Args:
    cells: as scores.cells returns them.

  Returns:
    A pd.DataFrame of strings, 'ours (paper, difference)', with a row for each
    part and model; the best of ours in each part of a column is marked with an
    asterisk.
  """
  rows = {(part, model): [_text(cell) for cell in row]
          for part, by_model in arrange(cells).items()
          for model, row in by_model.items()}
  frame = pd.DataFrame.from_dict(
      rows, orient='index',
      columns=[f'{task} {metric}' for task, metric in columns(cells)])
  frame.index = pd.MultiIndex.from_tuples(rows, names=['', 'model'])
  return frame


def _text(cell):
  text = cell.ours or MISSING
  if cell.best:
    text += '*'
  if cell.error:
    text += f' ± {cell.error}'
  printed = [value for value in (cell.paper, cell.difference) if value]
  return f'{text} ({", ".join(printed)})' if printed else text


def to_markdown(frame):
  """Writes the table in Markdown."""
  rows = frame.reset_index()
  rows[''] = rows[''].mask(rows[''].duplicated(), '')
  return markdown.table(rows, numbers=range(2, len(rows.columns)))


def to_latex(frame):
  """Writes the table in LaTeX, for the packages booktabs and multirow."""
  style = frame.style.format(escape='latex')
  for axis in (0, 1):
    style = style.format_index(escape='latex', axis=axis)
  return style.to_latex(
      column_format='ll' + 'r' * len(frame.columns), hrules=True,
      clines='skip-last;data', multirow_align='t')
