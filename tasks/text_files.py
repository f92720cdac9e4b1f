"""Local text as a SeqIO data source; base.documents reads the files."""

import itertools

import gin
import seqio
import tensorflow as tf

from mtf_conv.base import documents

# Opening files one by one in tf.data costs more than reading small ones.
_MAX_GROUPS = 256
_BATCH = 32  # Documents in one call from tf.data, which costs much itself.
_SHUFFLE_BUFFER = 1024  # Documents; at most documents.MAX_CHARACTERS each.


@gin.configurable('text_files', module='mtf_conv.tasks')
def _bindings(train=None, validation=None):
  """Returns what gin binds; its errors are raised out of gin's sight."""
  return {'train': train, 'validation': validation}


def split_files(split):
  """Returns the files of one split of `text_span_corruption`.

  They are those of the globs bound to `mtf_conv.tasks.text_files.<split>`, or
  else in the environment variable MTF_CONV_TEXT (MTF_CONV_TEXT_VALIDATION).

  Args:
    split: 'train' or 'validation'.

  Raises:
    errors.UserError: no file is named, or a glob matches none.
  """
  return documents.split_files(split, _bindings()[split])


class TextFileDataSource(seqio.DataSource):
  """Documents of local files, which are looked for when they are read.

  Nothing is held in memory but the document being read and a buffer of
  documents to shuffle in.
  """

  def __init__(self):
    super().__init__(splits=('train', 'validation'))

  @property
  def supports_arbitrary_sharding(self):
    """A file is the smallest shard."""
    return False

  def list_shards(self, split):
    """Returns the files of a split."""
    return split_files(split)

  def get_dataset(self, split='train', shuffle=True, seed=None,
                  shard_info=None, **unused_kwargs):
    """Returns a dataset of {'text': a scalar string}.

    Args:
      split: 'train' or 'validation'.
      shuffle: whether to shuffle files, and documents in a buffer.
      seed: an integer, a scalar tensor, or None.
      shard_info: a seqio.ShardInfo: every num_shards-th file is read.
      **unused_kwargs: what SeqIO also passes, which does not matter here.
    """
    paths = split_files(split)
    if shard_info:
      paths = paths[shard_info.index::shard_info.num_shards]
    dataset = tf.data.Dataset.from_tensor_slices(paths)
    if shuffle:
      dataset = dataset.shuffle(len(paths), seed=seed)
    dataset = dataset.batch(-(-len(paths) // _MAX_GROUPS)).interleave(
        _read_group, cycle_length=16, block_length=16)
    dataset = dataset.map(lambda text: {'text': text})
    return dataset.shuffle(_SHUFFLE_BUFFER, seed=seed) if shuffle else dataset


def _batches(paths):
  """Yields lists of documents of a vector of paths, as tf.data calls it."""
  texts = itertools.chain.from_iterable(
      documents.read_documents(path.decode()) for path in paths)
  while batch := list(itertools.islice(texts, _BATCH)):
    yield batch


def _read_group(paths):
  """Returns the dataset of the documents of a vector of paths."""
  return tf.data.Dataset.from_generator(
      _batches, args=(paths,),
      output_signature=tf.TensorSpec([None], tf.string)).unbatch()
