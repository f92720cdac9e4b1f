"""Whether a task's input pipeline keeps up with training."""

import itertools
import json
import os
import tempfile
import time

import numpy as np
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from t5.models import mesh_transformer

from mtf_conv import vocabulary
from mtf_conv.base import gin_files, machine
from mtf_conv.measure.speed import timing, whole_models
from mtf_conv.prepare import builders, lengths

MODEL = 'models/lightconv.mini.gin'
_SECONDS = 3
_BATCH, _BATCHES = 64, 20  # Rows in a batch that is read; batches in a round.
_TRAINED_TOKENS = 4096  # In a batch that is trained on, padding included.
_CACHED = 5000  # Examples in the cache that is written to be timed.


def reader(task, use_cached=False):
  """Opens a task's training batches, packed and padded, as T5 does.

  Args:
    task: the name of a task whose data is prepared.
    use_cached: whether to read SeqIO's cache instead.

  Returns:
    A function without arguments that reads the next of endless rows and returns
    (how many, the tokens of their inputs and targets without padding).
  """
  batches = iter(tfds.as_numpy(mesh_transformer.mesh_train_dataset_fn(
      task, gin_files.sequence_lengths(task), 'train', seed=0,
      use_cached=use_cached
  ).batch(_BATCH).prefetch(tf.data.AUTOTUNE)))

  def read():
    return _BATCH * _BATCHES, sum(
        np.count_nonzero(batch[name])
        for batch in itertools.islice(batches, _BATCHES)
        for name in lengths.FEATURES)

  return read


def trainer(task):
  """Builds MODEL for rows of a task's lengths.

  Args:
    task: the name of a task.

  Returns:
    (a function without arguments that trains it for a step, rows in a step).
  """
  bound = gin_files.sequence_lengths(task)
  rows = max(1, _TRAINED_TOKENS // sum(bound.values()))
  ids = seqio.SentencePieceVocabulary(
      vocabulary.model_path(), vocabulary.EXTRA_IDS).vocab_size
  return whole_models.training_step(
      MODEL, rows, bound['inputs'], bound['targets'], ids, (),
      say=lambda _: None, check=False), rows


def write_cache(task, folder):
  """Writes SeqIO's cache of a task's first examples, in one shard.

  SeqIO's own program for it needs Apache Beam; the files are the same.

  Args:
    task: the name of a task whose data is prepared.
    folder: one that seqio.add_global_cache_dirs is given.
  """
  def write_json(path, content):
    with open(path, 'w') as f:
      json.dump(content, f)

  folder = os.path.join(folder, seqio.utils.get_task_dir_from_name(task))
  os.makedirs(folder)
  dataset = seqio.TaskRegistry.get(task).get_dataset(
      None, 'train', shuffle=False).take(_CACHED)
  # Before the end of the sequence is appended, as where the placeholder is.
  dataset = dataset.map(lambda example: {
      **example, **{name: example[name][:-1] for name in lengths.FEATURES}})
  prefix = seqio.utils.get_cached_tfrecord_prefix(folder, 'train')
  count = 0
  with tf.io.TFRecordWriter(f'{prefix}-00000-of-00001') as writer:
    for example in tfds.as_numpy(dataset):
      writer.write(seqio.dict_to_tfexample(example).SerializeToString())
      count += 1
  write_json(seqio.utils.get_cached_info_path(folder, 'train'), {
      'num_shards': 1, 'seqio_version': seqio.__version__,
      'features': {
          name: {'shape': spec.shape.as_list(), 'dtype': spec.dtype.name}
          for name, spec in dataset.element_spec.items()}})
  write_json(seqio.utils.get_cached_stats_path(folder, 'train'),
             {'examples': count})
  write_json(os.path.join(folder, 'COMPLETED'), None)


def show_all(tasks, data_dir=None, seconds=_SECONDS):
  """Prints what is delivered and what is trained on, of the prepared tasks.

  Both per second of one core: the CPU time of all threads is counted, so that
  other work on the machine matters little.

  Args:
    tasks: names of tasks.
    data_dir: TFDS's data folder; TFDS's default when None.
    seconds: CPU seconds for each figure.
  """
  if data_dir:
    seqio.set_tfds_data_dir_override(os.path.abspath(data_dir))
  print(f'{machine.describe()}; {MODEL}; tokens per second of a core')
  print(f'{"":17}{"prepared":>11}{"cached":>11}'
        f'{"trained":>11}   prepared / trained')
  with tempfile.TemporaryDirectory() as folder:
    for task in filter(builders.prepared_dir, tasks):
      write_cache(task, folder)
      seqio.add_global_cache_dirs([folder])
      rows, tokens, prepared = _read(task, seconds)
      *_, cached = _read(task, seconds, use_cached=True)
      train, trained_rows = trainer(task)
      trained = trained_rows / _cpu_seconds(train, seconds)
      print(f'{task:17}' + ''.join(
          f'{tokens / rows * rate:11,.0f}'
          for rate in (prepared, cached, trained))
          + f'{prepared / trained:12.1f}', flush=True)


def _read(task, seconds, use_cached=False):
  """Returns rows, the tokens in them, and rows per CPU second."""
  # What is read ahead ends with the reader: it must not run beside others.
  read = reader(task, use_cached)
  rows, tokens = read()
  return rows, tokens, rows / _cpu_seconds(read, seconds)


def _cpu_seconds(call, seconds):
  """Returns the median of a call's CPU seconds, other processes left out."""
  return timing.interleave(
      {'call': call}, seconds, min_rounds=3, warm_up=1,
      clock=time.process_time).median('call')
