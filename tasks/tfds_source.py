"""TFDS data that is read only once it is prepared."""

import os

import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from mtf_conv import errors, network


def default_data_dir():
  """Returns the folder in which TFDS looks for data unless told another."""
  return os.environ.get('TFDS_DATA_DIR') or tfds.core.constants.DATA_DIR


def prepared_dir(tfds_name, data_dir=None):
  """Finds prepared data without a look at the network.

  Args:
    tfds_name: 'name:version' or 'name/config:version'.
    data_dir: TFDS's data folder; TFDS's default when None.

  Returns:
    The folder of the prepared data, or None when it is not prepared. TFDS
    moves data here only when it is whole.
  """
  folder = os.path.join(os.path.expanduser(data_dir or default_data_dir()),
                        tfds_name.replace(':', '/'))
  if folder.startswith('gs://'):
    network.require('https://storage.googleapis.com', f'{tfds_name} ({folder})',
                    'give a local --tfds_data_dir')
  info = os.path.join(folder, 'dataset_info.json')
  return folder if tf.io.gfile.exists(info) else None


class PreparedTfdsDataSource(seqio.TfdsDataSource):
  """A TFDS data source that says what to run instead of downloading.

  Where there is no network, TFDS retries for minutes and then fails with
  hundreds of lines.
  """

  def __init__(self, name_fn, splits, remedy):
    """Constructor; reads nothing.

    Args:
      name_fn: returns 'name:version' or 'name/config:version'. A function,
        because gin may name the version, and is parsed later.
      splits: a dictionary from SeqIO's splits to TFDS's.
      remedy: the command that prepares it, or what to do instead; '{data_dir}'
        in it stands for the folder.
    """
    super().__init__(name_fn(), splits=splits)
    self._name_fn = name_fn
    self._split_map = splits
    self._remedy = remedy

  @property
  def tfds_dataset(self):
    """TFDS's loader, under today's name and data folder.

    One loader would keep the first it sees of both; builders are kept by name
    and folder anyway.
    """
    return seqio.LazyTfdsLoader(
        self._name_fn(), split_map=self._split_map, read_only=True)

  def _require_prepared(self):
    data = self.tfds_dataset
    data_dir = data.data_dir or default_data_dir()
    if not prepared_dir(data.name, data_dir):
      raise errors.UserError(f'{data.name} is not prepared in {data_dir}: '
                             + self._remedy.format(data_dir=data_dir))

  def get_dataset(self, *args, **kwargs):
    """As in seqio.TfdsDataSource, of prepared data alone."""
    self._require_prepared()
    return super().get_dataset(*args, **kwargs)

  def num_input_examples(self, split):
    """Returns the rows of a split."""
    self._require_prepared()
    return super().num_input_examples(split)

  def list_shards(self, split):
    """Returns the files of a split."""
    self._require_prepared()
    return super().list_shards(split)
