"""How sure a score is, and the difference between two on the same rows.

Each score of Table 2 is a ratio of two sums over rows: of accuracy, the right
ones over all; of F1, 2 tp over 2 tp + fp + fn. Its standard error over rows is
that of a ratio, linearised; for accuracy this is the binomial one. Two scores
on the same rows differ by less than two on different ones: their rows are taken
together. To the variance over rows comes that over seeds.
"""

import numpy as np

from mtf_conv.tasks import classification

LEVEL = 1.96  # Errors on each side: 95% of a normal distribution.


def influence(task, metric, rows):
  """Returns how each row moves a score, in percent; their mean is 0.

  Args:
    task: the name of the task.
    metric: the name of its metric.
    rows: as events.predictions returns them.

  Returns:
    (the score, an array [rows]), the error of the score being the deviation of
    the array over the square root of its length; None for a metric that is no
    ratio of sums of known rows.
  """
  target = np.array([row['target'] for row in rows], object)
  prediction = np.array([row['prediction'] for row in rows], object)
  right = target == prediction
  dataset = classification.DATASETS.get(task)
  if metric in ('accuracy', 'exact_match'):
    above, below = right, np.ones(len(rows))
  elif metric == 'f1' and dataset and dataset.positive:
    found, wanted = (prediction == dataset.positive,
                     target == dataset.positive)
    above, below = 2 * (found & wanted), 1 * found + wanted
  elif dataset and dataset.unseen and metric == (
      f'accuracy_not_{dataset.unseen}'):
    below = target != dataset.unseen
    above = right & below
  else:
    return None
  below = np.asarray(below, float)
  if not below.sum():
    return None
  ratio = above.sum() / below.sum()
  return 100 * ratio, 100 * (above - ratio * below) / below.mean()


def error(influences, std=np.nan):
  """Returns the standard error of the mean score of several seeds.

  Args:
    influences: an array [seeds, rows].
    std: the standard deviation over seeds; NaN for a single one.

  Returns:
    A float, in the unit of the influences.
  """
  seeds, rows = np.shape(influences)
  variance = np.mean(influences, 0).var() / rows
  if seeds > 1:
    variance += std ** 2 / seeds
  return float(np.sqrt(variance))


def difference(a, b):
  """Compares two cells.

  Args:
    a: a row of scores.cells.
    b: another one, of the same task and metric.

  Returns:
    (a minus b, its standard error), the error NaN where the rows of one are not
    known, or those of the two not the same.
  """
  found = a.ours - b.ours
  if a.influences is None or b.influences is None or a.rows != b.rows:
    return found, np.nan
  rows = np.mean(a.influences, 0) - np.mean(b.influences, 0)
  variance = rows.var() / len(rows) + sum(
      cell.std ** 2 / cell.seeds for cell in (a, b) if cell.seeds > 1)
  return found, float(np.sqrt(variance))


def verdict(found, its_error, ahead='ahead', behind='behind'):
  """Returns what a difference says, in the words given for its two sides."""
  if np.isnan(its_error):
    return 'error not known'
  if abs(found) <= LEVEL * its_error:
    return 'no difference seen'
  return ahead if found > 0 else behind
