"""Pre-training tasks: T5's span corruption, on C4, IMDb and local text.

T5's own recipe does the work (15% of the tokens, spans of 3 on average, a
unique sentinel for each): with the lengths of gin/objectives/span_3_15.gin no
token of the model's input or target is padding.
"""

import functools

import gin
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds
from mtf_conv.tasks import text_files, tfds_source
from t5.data import preprocessors

from mtf_conv import vocabulary
from mtf_conv.base import autograph


@gin.configurable('c4', module='mtf_conv.tasks')
def c4_name(version='2.2.0'):
  """Returns TFDS's name of the English C4.

  Args:
    version: the version of TFDS's builder; 2.2.0 is what T5 itself takes.
  """
  return f'c4/en:{version}'


@gin.configurable(module='mtf_conv.tasks')
def span_corruption(dataset, sequence_length, output_features,
                    noise_density=0.15, mean_span_length=3.0):
  """T5's span corruption, whose rate gin can set.

  Args:
    dataset: a tf.data.Dataset of {'targets': ids of a document}.
    sequence_length: a dict with the lengths of 'inputs' and 'targets'.
    output_features: of SeqIO.
    noise_density: the share of the tokens that is replaced.
    mean_span_length: how many tokens a sentinel stands for, on average.

  Returns:
    A tf.data.Dataset of {'inputs': ..., 'targets': ...}.
  """
  return preprocessors.span_corruption(
      dataset, sequence_length, output_features,
      mean_noise_span_length=mean_span_length, noise_density=noise_density)


def documents(task, split):
  """Yields the text of a task of span corruption.

  Args:
    task: a seqio.Task.
    split: of the task.

  Yields:
    Strings, the documents in their order, as they are before the vocabulary.
  """
  def build():
    dataset = task.source.get_dataset(split, shuffle=False)
    for preprocessor in task.preprocessors:
      if preprocessor is seqio.preprocessors.tokenize:
        break
      dataset = preprocessor(dataset)
    return dataset

  with tf.Graph().as_default():
    for example in tfds.as_numpy(autograph.avoid(build)):
      yield example['targets'].decode('utf-8')


def _without_line_breaks(dataset):
  """Takes HTML's line breaks out of reviews."""
  def convert(example):
    return {'text': tf.strings.regex_replace(
        example['text'], r'(<br />\s*)+', ' ')}

  return dataset.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def _add(name, source, *preprocessors):
  seqio.TaskRegistry.add(
      name,
      source=source,
      preprocessors=[
          *preprocessors,
          functools.partial(
              seqio.preprocessors.rekey,
              key_map={'inputs': None, 'targets': 'text'}),
          seqio.preprocessors.tokenize,
          seqio.CacheDatasetPlaceholder(),
          span_corruption,
          seqio.preprocessors.append_eos_after_trim,
      ],
      output_features={
          'inputs': seqio.Feature(
              vocabulary.ConfiguredVocabulary(), required=False),
          'targets': seqio.Feature(vocabulary.ConfiguredVocabulary()),
      })


_add('c4_span_corruption', tfds_source.PreparedTfdsDataSource(
    c4_name, splits={'train': 'train', 'validation': 'validation'},
    remedy='prepare it there with TFDS and Apache Beam, or train on local text '
           'with text_span_corruption'))
_add('text_span_corruption', text_files.TextFileDataSource())
# Its 50,000 unlabelled reviews, 1,000 of which are held out.
_add('imdb_span_corruption', tfds_source.PreparedTfdsDataSource(
    lambda: 'imdb_reviews/plain_text:1.0.0',
    splits={'train': 'unsupervised[2%:]', 'validation': 'unsupervised[:2%]'},
    remedy='run mtf_conv prepare imdb --data_dir={data_dir}'),
     _without_line_breaks)
