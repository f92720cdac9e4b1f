"""Reads what T5 has written into a model_dir."""

import ast
import glob
import os

import numpy as np
import pandas as pd
import tensorflow.compat.v1 as tf

from mtf_conv.model_dir import record


def _values(folder):
  """Yields (step, tag, value) of the event files of a folder, as written."""
  # Their names hold the time at which they were begun.
  for path in sorted(tf.io.gfile.glob(
      os.path.join(glob.escape(folder), 'events.*'))):
    try:
      for event in tf.train.summary_iterator(path):
        for value in event.summary.value:
          yield event.step, value.tag, value.simple_value
    except tf.errors.DataLossError:
      pass  # The rest of the record died with its process.


def scalars(folder, tag):
  """Reads one curve from the event files of a folder.

  A run that was killed and resumed has several event files, whose steps
  overlap and of which all but the last may end within a record. What was
  written last about a step holds.

  Args:
    folder: the folder of the event files.
    tag: the name of the scalar.

  Returns:
    A pd.Series of floats, indexed and sorted by step.
  """
  found = {step: value for step, name, value in _values(folder) if name == tag}
  curve = pd.Series(found, dtype=float, name=tag)
  return curve.rename_axis('step').sort_index()


def scores(model_dir, task, metric='accuracy', split='validation'):
  """Reads the scores that T5's eval mode gave the checkpoints of a run.

  Args:
    model_dir: the run's folder.
    task: the name of the task.
    metric: the name of its metric.
    split: the split that was evaluated.

  Returns:
    A pd.Series, indexed by step.
  """
  return scalars(os.path.join(model_dir, split + '_eval'),
                 f'eval/{task}/{metric}')


def evaluation(model_dir, step, split='validation'):
  """Reads all scores that T5's eval mode gave a checkpoint.

  Args:
    model_dir: the run's folder.
    step: of the checkpoint.
    split: the split that was evaluated.

  Returns:
    A dict from names such as 'trec/accuracy' to numbers.
  """
  folder = os.path.join(model_dir, split + '_eval')
  return {tag[len('eval/'):]: value for found, tag, value in _values(folder)
          if found == step and tag.startswith('eval/')}


def losses(model_dir):
  """Reads the training loss, a pd.Series indexed by step."""
  return scalars(model_dir, 'loss')


def steps_per_second(model_dir):
  """Reads how fast a run trained.

  Args:
    model_dir: the run's folder.

  Returns:
    The median over the run, which neither the first steps nor the writing of
    checkpoints moves; NaN when there is none.
  """
  return float(scalars(model_dir, 'global_step/sec').median())


def best(curve):
  """Finds the peak score over the checkpoints, as the paper reports it.

  Args:
    curve: scores indexed by step.

  Returns:
    (step, score) of the first of the best; (NaN, NaN) without any score.
  """
  curve = curve.dropna()
  if curve.empty:
    return np.nan, np.nan
  return int(curve.idxmax()), float(curve.max())


def parameters(model_dir):
  """Counts the weights of the last checkpoint.

  Args:
    model_dir: the run's folder.

  Returns:
    The number of trained weights, without the optimizer's; NaN when there is
    no checkpoint.
  """
  checkpoint = tf.train.latest_checkpoint(model_dir)
  if not checkpoint:
    return np.nan
  return record.count_parameters(dict(tf.train.list_variables(checkpoint)))


def _text(line):
  """Reads a line of T5's, which writes inputs as Python shows bytes."""
  try:
    value = ast.literal_eval(line) if line[:2] in ("b'", 'b"') else line
  except (SyntaxError, ValueError):
    return line  # A text that begins like bytes.
  return value.decode('utf-8', 'replace') if isinstance(value, bytes) else value


def predictions(model_dir, task, step, split='validation'):
  """Reads what T5's eval mode wrote of the examples of a checkpoint.

  Args:
    model_dir: the run's folder.
    task: the name of the task.
    step: of the checkpoint.
    split: the split that was evaluated.

  Returns:
    A list of dicts with input, target and prediction; empty when a file is
    missing.
  """
  folder = os.path.join(model_dir, split + '_eval')
  columns = []
  for name in ('inputs', 'targets', f'{step}_predictions'):
    try:
      with tf.io.gfile.GFile(os.path.join(folder, f'{task}_{name}')) as f:
        columns.append([_text(line) for line in f.read().splitlines()])
    except tf.errors.NotFoundError:
      return []
  return [dict(zip(('input', 'target', 'prediction'), row))
          for row in zip(*columns)]
