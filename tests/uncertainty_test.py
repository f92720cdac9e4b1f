"""Errors of scores, against the bootstrap and against known formulas."""

from types import SimpleNamespace

import numpy as np
import pytest
from mtf_conv.tasks import metrics

from mtf_conv.report import uncertainty


def _rows(seed, labels, right, count=300):
  rng = np.random.RandomState(seed)
  targets = rng.choice(labels, count)
  return [{'target': target, 'prediction': (
      target if rng.rand() < right else rng.choice(labels))}
      for target in targets]


def _bootstrap(score, *of_rows, draws=4000):
  """The deviation of a function of rows, all drawn together."""
  rng = np.random.RandomState(0)
  count = len(of_rows[0])
  found = []
  for _ in range(draws):
    drawn = rng.randint(0, count, count)
    found.append(score(*([rows[i] for i in drawn] for rows in of_rows)))
  return np.std(found)


def _score(task, metric):
  def score(rows):
    return uncertainty.influence(task, metric, rows)[0]
  return score


@pytest.mark.parametrize('task, metric, labels', [
    ('sst2', 'accuracy', ['positive', 'negative']),
    ('my_task', 'exact_match', ['a', 'b', 'c']),
    ('civil_comments', 'f1', ['toxic', 'not toxic', 'not toxic']),
    ('sentiment140', 'accuracy_not_neutral',
     ['positive', 'negative', 'neutral'])])
def test_errors_are_those_of_the_bootstrap(task, metric, labels):
  rows = _rows(1, labels, 0.7)
  _, influence = uncertainty.influence(task, metric, rows)
  assert influence.mean() == pytest.approx(0, abs=1e-9)
  assert uncertainty.error([influence]) == pytest.approx(
      _bootstrap(_score(task, metric), rows), rel=0.06)


def test_scores_are_those_of_the_metrics():
  rows = _rows(2, ['toxic', 'not toxic'], 0.5)
  targets, predictions = zip(*((r['target'], r['prediction']) for r in rows))
  assert _score('civil_comments', 'f1')(rows) == pytest.approx(
      metrics.label_f1(targets, predictions, 'toxic')['f1'])
  rows = _rows(3, ['positive', 'neutral'], 0.5)
  targets, predictions = zip(*((r['target'], r['prediction']) for r in rows))
  assert _score('sentiment140', 'accuracy_not_neutral')(rows) == (
      pytest.approx(metrics.accuracy_without(targets, predictions, 'neutral')[
          'accuracy_not_neutral']))


def test_the_error_of_accuracy_is_the_binomial_one():
  rows = [{'target': 'a', 'prediction': 'a' if i < 80 else 'b'}
          for i in range(100)]
  score, influence = uncertainty.influence('trec', 'accuracy', rows)
  assert score == 80
  assert uncertainty.error([influence]) == pytest.approx(4)


@pytest.mark.parametrize('metric', ['f1', 'loss'])
def test_a_metric_that_reads_more_than_rows_has_no_error(metric):
  assert uncertainty.influence(
      'squad', metric, [{'target': 'a', 'prediction': 'a'}]) is None


def test_f1_of_rows_without_a_positive_has_no_error():
  assert uncertainty.influence('civil_comments', 'f1', [
      {'target': 'not toxic', 'prediction': 'not toxic'}]) is None


def _cell(of_seeds):
  """A cell of accuracy; of_seeds holds booleans [seeds, rows]."""
  of_seeds = np.array(of_seeds, float)
  scores = 100 * of_seeds.mean(1)
  return SimpleNamespace(
      ours=scores.mean(), seeds=len(scores),
      std=scores.std(ddof=1) if len(scores) > 1 else np.nan,
      rows=of_seeds.shape[1],
      influences=100 * (of_seeds - of_seeds.mean(1, keepdims=True)))


def test_a_difference_takes_the_same_rows_together():
  rng = np.random.RandomState(4)
  a = rng.rand(1, 400) < 0.8
  b = a ^ (rng.rand(1, 400) < 0.05)  # Another answer on a few rows.
  found, error = uncertainty.difference(_cell(a), _cell(b))
  assert found == pytest.approx(100 * (a.mean() - b.mean()))
  assert error == pytest.approx(_bootstrap(
      lambda x, y: 100 * (np.mean(x) - np.mean(y)), a[0], b[0]), rel=0.06)
  # Twice the variance of one, were they of different rows.
  alone = uncertainty.error(_cell(a).influences)
  assert error < alone


def test_seeds_add_their_variance():
  rng = np.random.RandomState(5)
  cell = _cell(rng.rand(3, 200) < np.array([[0.6], [0.7], [0.8]]))
  rows = cell.influences.mean(0).var() / 200
  assert uncertainty.error(cell.influences, cell.std) == pytest.approx(
      np.sqrt(rows + cell.std ** 2 / 3))
  other = _cell(rng.rand(1, 200) < 0.7)
  _, error = uncertainty.difference(cell, other)
  assert error > np.sqrt(cell.std ** 2 / 3)


def test_what_is_not_known_is_not_told():
  cell = _cell(np.ones((1, 10)))
  for other in (_cell(np.ones((1, 9))), SimpleNamespace(
      ours=50., influences=None, rows=0, seeds=1, std=np.nan)):
    found, error = uncertainty.difference(cell, other)
    assert np.isnan(error)
    assert uncertainty.verdict(found, error) == 'error not known'


@pytest.mark.parametrize('found, verdict', [
    (1.9, 'no difference seen'), (-1.9, 'no difference seen'),
    (2.0, 'ahead'), (-2.0, 'behind')])
def test_verdicts(found, verdict):
  assert uncertainty.verdict(found, 1.0) == verdict
