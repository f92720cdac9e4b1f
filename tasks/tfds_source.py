"""TFDS data that is read only once it is prepared."""

import json
import os

import seqio
import tensorflow as tf
from mtf_conv.tasks import labels

from mtf_conv import vocabulary
from mtf_conv.base import errors, files, network

_SHUFFLED = 100_000  # Rows among which the next one is drawn, at most.


def prepared_dir(tfds_name, data_dir=None):
  """Finds prepared data without a look at the network.

  Args:
    tfds_name: 'name:version' or 'name/config:version'.
    data_dir: TFDS's data folder; TFDS's default when None.

  Returns:
    The folder of the prepared data, or None when it is not prepared. TFDS
    moves data here only when it is whole.
  """
  folder = os.path.join(os.path.expanduser(data_dir or files.tfds_data_dir()),
                        tfds_name.replace(':', '/'))
  if folder.startswith('gs://'):
    network.require('https://storage.googleapis.com', f'{tfds_name} ({folder})',
                    'give a local --t5_tfds_data_dir')
  info = os.path.join(folder, 'dataset_info.json')
  return folder if tf.io.gfile.exists(info) else None


def manifest_path(tfds_name, data_dir=None):
  """Returns the path of the file that says what data was prepared from."""
  return os.path.join(
      os.path.expanduser(data_dir or files.tfds_data_dir()), 'mtf_conv',
      tfds_name.replace(':', '-') + '.json')


def read_manifest(tfds_name, data_dir=None):
  """Returns what `mtf_conv prepare` noted; None for data of other origin."""
  try:
    with tf.io.gfile.GFile(manifest_path(tfds_name, data_dir)) as f:
      return json.loads(f.read())
  except tf.errors.NotFoundError:
    return None


class PreparedTfdsDataSource(seqio.TfdsDataSource):
  """A TFDS data source that says what to run instead of downloading.

  Where there is no network, TFDS retries for minutes and then fails with
  hundreds of lines.
  """

  def __init__(self, name_fn, splits, remedy, filters=None, label_of=None):
    """Constructor; reads nothing.

    Args:
      name_fn: returns 'name:version' or 'name/config:version'. A function,
        because gin may name the version, and is parsed later.
      splits: a dictionary from SeqIO's splits to TFDS's.
      remedy: the command that prepares it, or what to do instead; '{data_dir}'
        in it stands for the folder.
      filters: a dictionary from SeqIO's splits to functions that say whether an
        example is in the split; all are where a split has none.
      label_of: a function from an example to an integer, its class, where gin
        may draw a part of the split 'train', and the split 'dev' from it.
    """
    if label_of:
      splits = {**splits, labels.DEV: splits['train']}
    super().__init__(name_fn(), splits=splits)
    self._name_fn = name_fn
    self._split_map = splits
    self.remedy = remedy
    self._filters = filters or {}
    self._label_of = label_of

  @property
  def tfds_dataset(self):
    """TFDS's loader, under today's name and data folder.

    One loader would keep the first it sees of both; builders are kept by name
    and folder anyway.
    """
    return seqio.LazyTfdsLoader(
        self._name_fn(), split_map=self._split_map, read_only=True)

  def tfds_split(self, split):
    """Returns TFDS's name of one of SeqIO's splits."""
    return self._split_map[split]

  def _require_prepared(self):
    data = self.tfds_dataset
    data_dir = data.data_dir or files.tfds_data_dir()
    if not prepared_dir(data.name, data_dir):
      raise errors.UserError(f'{data.name} is not prepared in {data_dir}: '
                             + self.remedy.format(data_dir=data_dir))

  def get_dataset(self, split, shuffle=True, seed=None, shard_info=None,
                  **kwargs):
    """As in seqio.TfdsDataSource, of prepared data alone."""
    self._require_prepared()
    if self._is_drawn(split):
      if not self._label_of:
        raise errors.UserError(
            f'mtf_conv.tasks.labels: {self.tfds_dataset.name} is of no task of '
            'classification, and no part of its rows can be drawn')
      dataset = labels.rows(
          split, lambda: super(PreparedTfdsDataSource, self).get_dataset(
              'train', shuffle=False, **kwargs), self._label_of,
          self.tfds_dataset.name)
      if shard_info:
        dataset = dataset.shard(shard_info.num_shards, shard_info.index)
      rows = min(self.num_input_examples(split), _SHUFFLED)
      return dataset.shuffle(rows, seed=seed) if shuffle else dataset
    dataset = super().get_dataset(
        split, shuffle=shuffle, seed=seed, shard_info=shard_info, **kwargs)
    keep = self._filters.get(split)
    return dataset.filter(keep) if keep else dataset

  def _is_drawn(self, split):
    # Without classes a split 'dev' is the data set's own.
    return labels.divides(split) and (self._label_of or split != labels.DEV)

  def num_input_examples(self, split):
    """Returns the rows of a split; None where only reading could tell."""
    self._require_prepared()
    if self._is_drawn(split):
      return labels.count(split, super().num_input_examples('train'))
    return None if split in self._filters else super().num_input_examples(split)

  def list_shards(self, split):
    """Returns the files of a split."""
    self._require_prepared()
    return super().list_shards(split)


def add_task(name, tfds_name, splits, preprocessor, metric_fns, filters=None,
             label_of=None, **kwargs):
  """Registers a task on a TFDS dataset that `mtf_conv prepare` prepares.

  Args:
    name: the task's name.
    tfds_name: 'name:version' or 'name/config:version'.
    splits: a dictionary from SeqIO's splits to TFDS's.
    preprocessor: from a tf.data.Dataset of TFDS's features to one of strings,
      {'inputs': ..., 'targets': ...}, and of what the metrics need besides.
    metric_fns: SeqIO's metric functions.
    filters: see PreparedTfdsDataSource.
    label_of: see PreparedTfdsDataSource.
    **kwargs: what else seqio.TaskRegistry.add takes.
  """
  seqio.TaskRegistry.add(
      name,
      source=PreparedTfdsDataSource(
          lambda: tfds_name, splits, filters=filters, label_of=label_of,
          remedy=f'run mtf_conv prepare {name} --data_dir={{data_dir}}'),
      preprocessors=[
          preprocessor,
          seqio.preprocessors.tokenize,
          seqio.CacheDatasetPlaceholder(),
          seqio.preprocessors.append_eos_after_trim,
      ],
      metric_fns=metric_fns,
      output_features={
          'inputs': seqio.Feature(vocabulary.ConfiguredVocabulary()),
          'targets': seqio.Feature(vocabulary.ConfiguredVocabulary()),
      }, **kwargs)
