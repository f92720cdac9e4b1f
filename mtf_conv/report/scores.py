"""The scores of a grid: which checkpoint's, at which learning rate.

The paper's rule (section 4.2.2): of a run, the peak validation score over its
checkpoints; of the runs of one model, initialisation, task and seed, the best
learning rate. With several seeds, their mean and standard deviation. Each
metric of a task has a peak of its own. The peak is chosen on the rows that it
is the score of, and so is a little too high, here as in the paper.

Where the scale holds rows of the training set out (`dev`), checkpoint and rate
are the best on these, and the score is no peak of its own rows.
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
  """Reads the score of each fine-tuning run, and its peak.

  Args:
    runs: as replicate.grid.make returns them.

  Returns:
    (scores, notes): a pd.DataFrame with a row per run and metric: init, model,
    task, metric, learning_rate, seed, step, score (of that step; NaN if there
    is none), peak, choice (what the step is chosen by: its score on the split
    chosen_on) and model_dir; and a list of lines, what is missing or wrong.
  """
  rows, notes = [], []
  by_dev = {(run.model_dir, run.task): run
            for run in runs if run.split == grid.DEV}
  for run in runs:
    if run.stage != 'evaluate' or run.split == grid.DEV:
      continue
    for metric in metrics(run.task):
      curve = _curve(run, metric, notes)
      step, peak = events.best(curve)
      score, choice, chosen_on = peak, peak, run.split
      if (run.model_dir, run.task) in by_dev:
        chosen_on = grid.DEV
        dev = _curve(by_dev[run.model_dir, run.task], metric, notes)
        step, choice = events.best(dev[dev.index.isin(curve.index)])
        score = curve.get(step, np.nan)
      rows.append((run.init, run.model, run.task, metric, run.learning_rate,
                   run.seed, step, score, peak, choice, chosen_on,
                   run.model_dir))
  return pd.DataFrame(rows, columns=[
      *_CELL, 'learning_rate', 'seed', 'step', 'score', 'peak', 'choice',
      'chosen_on', 'model_dir']), notes


def _curve(run, metric, notes):
  """Reads the scores of an evaluation; adds what is wrong to the notes."""
  curve = events.scores(
      run.model_dir, grid.registered(run.task), metric, run.split)
  finite = np.isfinite(curve)
  for step in curve.index[~finite]:
    notes.append(f'{run.job.name}: {metric} at step {step} is {curve[step]}, '
                 'and is left out')
  if not finite.any():
    notes.append(f'{run.job.name}: no {metric} yet')
  return curve[finite]


def cells(scores):
  """Makes one row for each cell of Table 2.

  Args:
    scores: as `collect` returns them.

  Returns:
    A pd.DataFrame: init, model, task, metric, ours, std (over seeds; NaN for
    one), seeds, error (the standard error of ours, over rows and seeds; NaN
    where there are no predictions of the rows), rows (how many), influences
    (an array [seeds, rows], see uncertainty; or None), peak (what ours would be
    by the paper's rule) and chosen_on (the split that checkpoint and rate are
    the best on), learning_rate, step and model_dir (of the best seed), paper
    (NaN where it has none) and difference, ours - paper.
  """
  rows = []
  for key, group in scores.groupby(_CELL, sort=False):
    of_seeds = group.dropna(subset=['score'])
    winners = of_seeds.loc[of_seeds.groupby('seed').choice.idxmax()]
    row = dict(zip(_CELL, key), seeds=len(winners), ours=np.nan, std=np.nan,
               error=np.nan, rows=0, influences=None, peak=np.nan,
               chosen_on=group.chosen_on.iloc[0], learning_rate=np.nan,
               step=np.nan, model_dir=None)
    if len(winners):
      best = winners.loc[winners.choice.idxmax()]
      row.update(ours=winners.score.mean(), std=winners.score.std(),
                 peak=of_seeds.groupby('seed').peak.max().mean(),
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
