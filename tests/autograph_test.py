"""Pipelines are built without AutoGraph where that is possible."""

import numpy as np
import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from mtf_conv import tasks  # noqa: F401, for the registry
from mtf_conv.base import autograph


def _read(build, *args, **kwargs):
  with tf.Graph().as_default():
    return list(tfds.as_numpy(build(*args, **kwargs)))


@pytest.mark.parametrize('task, split', [
    ('demo_pretrain', 'train'), ('demo_finetune', 'validation')])
def test_examples_are_the_same_to_the_last_id(task, split):
  task = seqio.get_mixture_or_task(task)
  options = dict(sequence_length={'inputs': 64, 'targets': 18}, split=split,
                 shuffle=True, seed=3)

  def first(**kwargs):
    return task.get_dataset(**kwargs).take(20)

  examples = _read(first, **options)
  assert len(examples) == 20
  for found, expected in zip(_read(autograph.avoid, first, **options),
                             examples):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
      np.testing.assert_array_equal(found[name], value)


def _dataset(function):
  return tf.data.Dataset.range(4).map(function)


def _branch(x):
  if x % 2 > 0:
    return -x
  return x


def _loop(x):
  total = tf.constant(0, tf.int64)
  for i in tf.range(x):
    total += i
  return total


def _lengthen(x):
  return len(tf.fill([x + 1], 0))


@pytest.mark.parametrize('function, expected', [
    (_branch, [0, -1, 2, -3]), (_loop, [0, 0, 1, 3]), (_lengthen, [1, 2, 3, 4]),
])
def test_python_that_branches_on_tensors_is_converted(function, expected):
  assert _read(autograph.avoid, _dataset, function) == expected


def test_an_error_of_the_pipeline_stays_what_it_is():
  calls = []

  def build():
    calls.append(None)
    raise ValueError('no such split')

  with pytest.raises(ValueError, match='no such split'):
    autograph.avoid(build)
  assert len(calls) == 1
