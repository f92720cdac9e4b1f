"""Metrics, in percent."""

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
