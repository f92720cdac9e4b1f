"""The paper's research questions, answered from the scores of a grid.

Nothing is called ahead, behind, gained or lost whose interval includes zero.
"""

import numpy as np
import pandas as pd

from mtf_conv.replicate import paper
from mtf_conv.report import uncertainty

_MISSING = 'No numbers yet.'
_BASE = 'transformer'


def differences(cells):
  """Compares what the questions compare.

  Args:
    cells: as scores.cells returns them.

  Returns:
    A pd.DataFrame with a row for each pre-trained model against itself without
    pre-training, and for each other model against the Transformer: task,
    metric, part ('gain', 'raw' or 'pretrained'), of, to (what is compared),
    difference (of minus to, in points), error (NaN where it is not known),
    verdict (see uncertainty.verdict), rows, seeds (the fewer of the two).
  """
  known = {(c.init, c.model, c.task, c.metric): c
           for c in cells.dropna(subset=['ours']).itertuples()}
  rows = []

  def compare(part, of, to, *names, words=('ahead', 'behind')):
    found, error = uncertainty.difference(of, to)
    rows.append((of.task, of.metric, part, *names, found, error,
                 uncertainty.verdict(found, error, *words),
                 max(of.rows, to.rows), min(of.seeds, to.seeds)))

  for (init, model, *place), cell in known.items():
    raw = known.get(('raw', model, *place))
    if init == 'pretrained' and raw:
      compare('gain', cell, raw, f'{model}, pre-trained', f'{model}, raw',
              words=('gains', 'loses'))
    base = known.get((init, _BASE, *place))
    if model != _BASE and base:
      compare(init, cell, base, model, _BASE)
  return pd.DataFrame(rows, columns=[
      'task', 'metric', 'part', 'of', 'to', 'difference', 'error', 'verdict',
      'rows', 'seeds'])


def answer(cells, speeds=None):
  """Answers RQ1 to RQ5 of section 1.

  Args:
    cells: as scores.cells returns them.
    speeds: steps of pre-training per second by model, from one machine.

  Returns:
    A list of (question, answer); an answer says when the numbers are missing.
  """
  known = cells.dropna(subset=['ours'])
  compared = differences(cells)
  return [
      ('RQ1: Do convolutions gain from pre-training as Transformers do?',
       _gains(known, compared[compared.part == 'gain'])),
      ('RQ2: Are convolutions competitive with the Transformer?',
       _wins(compared)),
      ('RQ3: Are they faster?', _speeds(speeds or {})),
      ('RQ4: Where should one not use them?',
       _losses(compared[compared.part == 'pretrained'])),
      ('RQ5: Which convolution is best?',
       _best(known[known.init == 'pretrained']))]


def _count(verdicts):
  """Returns '(of 4 columns: gains in 3, no difference seen in 1)'."""
  return f'(of {len(verdicts)} columns: ' + ', '.join(
      f'{verdict} in {count}'
      for verdict, count in verdicts.value_counts().items()) + ')'


def _sentence(parts):
  return '; '.join(parts) + '.' if parts else _MISSING


def _gains(known, gains):
  scores = {(c.init, c.model, c.task, c.metric): c.ours
            for c in known.itertuples()}
  lines = []
  for of, group in gains.groupby('of', sort=False):
    model = of.rpartition(', ')[0]
    relative = np.mean([
        paper.gain(scores['raw', model, row.task, row.metric],
                   scores['pretrained', model, row.task, row.metric])
        for row in group.itertuples()])
    lines.append(f'{model} {_count(group.verdict)}, {relative:+.1f} % on '
                 'average')
  return _sentence(lines)


def _wins(compared):
  lines = []
  for part, words in (('raw', 'without pre-training'),
                      ('pretrained', 'with it')):
    groups = compared[compared.part == part].groupby('of', sort=False)
    found = [f'{model} {_count(group.verdict)}' for model, group in groups]
    if found:
      lines.append(f'{words}, against the Transformer ' + ', '.join(found))
  text = _sentence(lines)
  return text[:1].upper() + text[1:]


def _speeds(speeds):
  base = speeds.get(_BASE)
  lines = [f'{model} {speed / base:.2f} times' for model, speed in
           speeds.items() if base and model != _BASE]
  return ('Steps of pre-training per second against the Transformer, whatever '
          f'ran beside them: {", ".join(lines)}. mtf_conv bench measures them '
          'in turn.' if lines else _MISSING)


def _losses(compared):
  if compared.empty:
    return _MISSING
  behind = compared[compared.verdict == 'behind']
  if behind.empty:
    if (compared.verdict == 'error not known').any():
      return 'It cannot be told: the errors of the scores are not known.'
    return ('In no column measured here is a pre-trained convolution seen '
            'behind the pre-trained Transformer.')
  return 'Pre-trained, behind the Transformer: ' + ', '.join(
      f'{row.of} on {row.task} {row.metric} (by {-row.difference:.2f} ± '
      f'{row.error:.2f})' for row in behind.itertuples()) + '.'


def _best(known):
  """Sets the best convolution of a column against the second."""
  convolutions = known[known.model != _BASE]
  if convolutions.empty:
    return _MISSING
  if convolutions.model.nunique() == 1:
    return (f'Pre-trained, {convolutions.model.iloc[0]} is the only one '
            'measured here.')
  lines = []
  for (task, metric), group in convolutions.groupby(
      ['task', 'metric'], sort=False):
    if len(group) < 2:
      continue
    best, second = group.sort_values('ours', ascending=False)[:2].itertuples()
    found, error = uncertainty.difference(best, second)
    what = uncertainty.verdict(found, error)
    lines.append(f'{task} {metric}: ' + (
        f'{best.model}, ahead of {second.model} by {found:.2f} ± {error:.2f}'
        if what == 'ahead' else
        f'{what} between {best.model} and {second.model} ({best.rows} rows, '
        f'{best.seeds} seeds)'))
  return _sentence(lines)
