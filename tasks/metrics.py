"""Metrics, in percent."""

import collections

from sklearn import metrics


def label_accuracy(targets, predictions, labels):
  """Accuracy of predicted label words, and how many are none.

  Args:
    targets: list of label words.
    predictions: list of what the model wrote.
    labels: all the label words.

  Returns:
    A dictionary: `accuracy`, and `invalid`, the part of the predictions that
    is no label. Those count as wrong; apart, they tell a model that has not
    learnt the format from one that confuses the classes.
  """
  invalid = sum(prediction not in labels for prediction in predictions)
  return {
      'accuracy': 100 * metrics.accuracy_score(targets, predictions),
      'invalid': 100 * invalid / len(predictions),
  }


def labels_of(task):
  """Returns all the label words of a task; () if it is no classification.

  Args:
    task: a seqio.Task; its metric label_accuracy has them.
  """
  for metric_fn in task.metric_fns:
    if getattr(metric_fn, 'func', None) is label_accuracy:
      return tuple(metric_fn.keywords['labels'])
  return ()


def label_f1(targets, predictions, positive):
  """F1 of one label; what is no label counts as not being that one.

  Args:
    targets: list of label words.
    predictions: list of what the model wrote.
    positive: the label word that is to be found.

  Returns:
    A dictionary: `f1`; 0 where the label is neither a target nor predicted.
  """
  return {'f1': 100 * metrics.f1_score(
      [target == positive for target in targets],
      [prediction == positive for prediction in predictions],
      zero_division=0)}


def accuracy_without(targets, predictions, label):
  """Accuracy on the rows of all labels but one.

  Args:
    targets: list of label words, not all of them `label`.
    predictions: list of what the model wrote.
    label: the label word whose rows are left out.

  Returns:
    A dictionary: `accuracy_not_<label>`.
  """
  kept = [pair for pair in zip(targets, predictions) if pair[0] != label]
  return {f'accuracy_not_{label}': 100 * metrics.accuracy_score(*zip(*kept))}


def exact_match_by_type(targets, predictions):
  """How many predictions are the target to the letter, over all and by type.

  Args:
    targets: list of (text, name of the type).
    predictions: list of what the model wrote.

  Returns:
    A dictionary: `exact_match`, and `exact_match/<type>` of each type where
    there are several.
  """
  matches = collections.defaultdict(list)
  for (text, kind), prediction in zip(targets, predictions):
    matches[kind].append(prediction == text)
  scores = {'exact_match': 100 * sum(map(sum, matches.values())) / len(targets)}
  if len(matches) > 1:
    for kind, matched in sorted(matches.items()):
      scores[f'exact_match/{kind}'] = 100 * sum(matched) / len(matched)
  return scores
