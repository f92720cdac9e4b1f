"""The scores of a grid, by the paper's rule.

The rule (section 4.2.2): of a run, the peak validation score over its
checkpoints; of the runs of one model, initialisation, task and seed, the best
learning rate. With several seeds, their mean and standard deviation. Each
metric of a task has a peak of its own. The peak is chosen on the rows that it
is the score of, and so is a little too high, here as in the paper.
"""

import numpy as np
import pandas as pd

from mtf_conv.model_dir import events
from mtf_conv.replicate import grid, paper
from mtf_conv.report import uncertainty

_CELL = ['init', 'model', 'task', 'metric']


# What a task is scored by beside what Table 2 has of it.
_METRICS = {
    'sentiment140': ('accuracy_not_neutral',), 'cogs': ('exact_match',),
    'cogs_gen': ('exact_match',), 'squad': ('em', 'f1')}


def metrics(task):
  """Returns the names of the metrics of a task, those of Table 2 first."""
  task = grid.registered(task)
  return [metric for name, metric in paper.COLUMNS if name == task] + list(
      _METRICS.get(task, ())) or ['accuracy']


def collect(runs):
  """Reads the peak score of each fine-tuning run.

  Args:
    runs: as replicate.grid.make returns them.

  Returns:
    (scores, notes): a pd.DataFrame with a row per run and metric: init, model,
    task, metric, learning_rate, seed, step, score (NaN if there is none) and
    model_dir; and a list of lines, what is missing or wrong.
  """
  rows, notes = [], []
  for run in runs:
    if run.stage != 'evaluate':
      continue
    for metric in metrics(run.task):
      curve = events.scores(
          run.model_dir, grid.registered(run.task), metric)
      for step in curve.index[~np.isfinite(curve)]:
        notes.append(f'{run.job.name}: {metric} at step {step} is '
                     f'{curve[step]}, and is left out')
      step, score = events.best(curve[np.isfinite(curve)])
      if np.isnan(score):
        notes.append(f'{run.job.name}: no {metric} yet')
      rows.append((run.init, run.model, run.task, metric, run.learning_rate,
                   run.seed, step, score, run.model_dir))
  return pd.DataFrame(rows, columns=[
      *_CELL, 'learning_rate', 'seed', 'step', 'score', 'model_dir']), notes


def cells(scores):
  """Makes one row for each cell of Table 2.

  Args:
    scores: as `collect` returns them.

  Returns:
    A pd.DataFrame: init, model, task, metric, ours, std (over seeds; NaN for
    one), seeds, error (the standard error of ours, over rows and seeds; NaN
    where there are no predictions of the rows), rows (how many), influences
    (an array [seeds, rows], see uncertainty; or None), learning_rate, step and
    model_dir (of the best seed), paper (NaN where it has none) and difference,
    ours - paper.
  """
  rows = []
  for key, group in scores.groupby(_CELL, sort=False):
    of_seeds = group.dropna(subset=['score'])
    winners = of_seeds.loc[of_seeds.groupby('seed').score.idxmax()]
    row = dict(zip(_CELL, key), seeds=len(winners), ours=np.nan, std=np.nan,
               error=np.nan, rows=0, influences=None, learning_rate=np.nan,
               step=np.nan, model_dir=None)
    if len(winners):
      best = winners.loc[winners.score.idxmax()]
      row.update(ours=winners.score.mean(), std=winners.score.std(),
                 learning_rate=best.learning_rate, step=best.step,
                 model_dir=best.model_dir)
      influences = _influences(winners)
      if influences is not None:
        row.update(influences=influences, rows=influences.shape[1],
                   error=uncertainty.error(influences, row['std']))
    printed = paper.score(key[1], key[0], key[2], key[3])
    row['paper'] = np.nan if printed is None else printed
    rows.append(row)
  frame = pd.DataFrame(rows)
  frame['difference'] = frame.ours - frame.paper
  return frame


def _influences(winners):
  """Returns an array [seeds, rows]; None where predictions are not there.

  Predictions that do not give the score, as those of a metric that reads more
  than them, do not count.
  """
  found = []
  for run in winners.itertuples():
    task = grid.registered(run.task)
    rows = events.predictions(run.model_dir, task, int(run.step))
    score, influence = (rows and uncertainty.influence(
        task, run.metric, rows)) or (np.nan, None)
    if not abs(score - run.score) < 0.01 or (
        found and len(influence) != len(found[0])):
      return None
    found.append(influence)
  return np.array(found)
