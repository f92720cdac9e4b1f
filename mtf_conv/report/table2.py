"""Table 2: ours, the paper's, and the difference."""

import numpy as np
import pandas as pd

from mtf_conv.replicate import paper

MISSING = '-'
_ROWS = {'raw': 'no pre-training', 'pretrained': 'with pre-training'}


def columns(cells):
  """Returns the (task, metric) there are: the paper's in its order first."""
  found = list(dict.fromkeys(zip(cells.task, cells.metric)))
  return sorted(found, key=lambda c: (
      paper.COLUMNS.index(c) if c in paper.COLUMNS else len(paper.COLUMNS)))


def to_frame(cells):
  """Arranges cells as the paper's table.

  Args:
    cells: as scores.cells returns them.

  Returns:
    A pd.DataFrame of strings, with a row for each model without pre-training,
    with it, and for what it gains (relative, in percent, as the paper's). A
    cell is 'ours (paper, difference)'; the best of ours in each part of a
    column is marked with an asterisk.
  """
  by_place = cells.set_index(['init', 'model', 'task', 'metric'])
  models = [m for m in paper.MODELS if m in set(cells.model)]
  table = {}
  for task, metric in columns(cells):
    column = {}
    for init, row in _ROWS.items():
      part = {model: by_place.loc[(init, model, task, metric)]
              for model in models
              if (init, model, task, metric) in by_place.index}
      best = max((cell.ours for cell in part.values()
                  if not np.isnan(cell.ours)), default=None)
      for model in models:
        column[row, model] = _cell(part.get(model), best)
    for model in models:
      column['gain, %', model] = _gain(by_place, model, task, metric)
    table[f'{task} {metric}'] = column
  frame = pd.DataFrame(table)
  frame.index.names = ['', 'model']
  return frame


def _cell(cell, best):
  if cell is None:
    return MISSING
  text = MISSING
  if not np.isnan(cell.ours):
    text = f'{cell.ours:.2f}' + ('*' if cell.ours == best else '')
    if not np.isnan(cell['std']):
      text += f' ± {cell["std"]:.2f}'
  if np.isnan(cell.paper):
    return text
  if np.isnan(cell.ours):
    return f'{text} ({cell.paper:.2f})'
  return f'{text} ({cell.paper:.2f}, {cell.difference:+.2f})'


def _gain(by_place, model, task, metric):
  try:
    raw, pretrained = (by_place.loc[(init, model, task, metric)]
                       for init in _ROWS)
  except KeyError:
    return MISSING
  ours = paper.gain(raw.ours, pretrained.ours)
  theirs = paper.gain(raw.paper, pretrained.paper)
  text = MISSING if np.isnan(ours) else f'{ours:+.1f}'
  return text if np.isnan(theirs) else f'{text} ({theirs:+.1f})'


def to_markdown(frame):
  """Writes the table in Markdown."""
  head = ['', 'model', *frame.columns]
  lines = ['| ' + ' | '.join(head) + ' |',
           '|' + '---|' * 2 + '---:|' * len(frame.columns)]
  last = None
  for (part, model), row in frame.iterrows():
    shown = '' if part == last else part
    last = part
    lines.append('| ' + ' | '.join([shown, model, *row]) + ' |')
  return '\n'.join(lines) + '\n'


def to_latex(frame):
  """Writes the table in LaTeX, for the package booktabs."""
  def escape(text):
    for old, new in (('_', r'\_'), ('%', r'\%'), ('±', r'$\pm$')):
      text = text.replace(old, new)
    return text
  lines = [r'\begin{tabular}{ll' + 'r' * len(frame.columns) + '}', r'\toprule',
           ' & '.join(map(escape, ['', 'model', *frame.columns])) + r' \\']
  last = None
  for (part, model), row in frame.iterrows():
    if part != last:
      lines.append(r'\midrule')
    lines.append(' & '.join(map(escape, [
        '' if part == last else part, model, *row])) + r' \\')
    last = part
  return '\n'.join([*lines, r'\bottomrule', r'\end{tabular}']) + '\n'
