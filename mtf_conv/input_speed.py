"""How many tokens per second a task's input pipeline delivers."""

import json
import os
import tempfile
import time

import seqio
import tensorflow as tf

from mtf_conv import lengths, prepare

_SECONDS = 5
_CACHED = 5000  # Examples in the cache that is written to be timed.


def tokens_per_second(task, use_cached=False, seconds=_SECONDS):
  """Reads training examples as T5 does, over and over, and counts tokens.

  Args:
    task: the name of a task whose data is prepared.
    use_cached: whether to read SeqIO's cache instead.
    seconds: for how long.

  Returns:
    Tokens of inputs and targets per second, padding not counted, after a first
    batch that is not timed.
  """
  dataset = seqio.TaskRegistry.get(task).get_dataset(
      lengths.in_gin(task), 'train', use_cached=use_cached, shuffle=True,
      seed=0).repeat()
  dataset = dataset.map(lambda example: sum(
      tf.size(example[feature]) for feature in lengths.FEATURES))
  batches = dataset.batch(64).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()
  next(batches)
  start, tokens = time.perf_counter(), 0
  while time.perf_counter() - start < seconds:
    tokens += int(next(batches).sum())
  return tokens / (time.perf_counter() - start)


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
    for example in dataset.as_numpy_iterator():
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
  """Prints the tokens per second of those tasks whose data is prepared.

  Args:
    tasks: names of tasks.
    data_dir: TFDS's data folder; TFDS's default when None.
    seconds: for how long each pipeline is read.
  """
  if data_dir:
    seqio.set_tfds_data_dir_override(os.path.abspath(data_dir))
  print(f'{"tokens per second":17}{"prepared":>12}{"cached":>12}')
  with tempfile.TemporaryDirectory() as folder:
    for task in filter(prepare.prepared_dir, tasks):
      prepared = tokens_per_second(task, seconds=seconds)
      write_cache(task, folder)
      seqio.add_global_cache_dirs([folder])
      cached = tokens_per_second(task, use_cached=True, seconds=seconds)
      print(f'{task:17}{prepared:12,.0f}{cached:12,.0f}', flush=True)
