"""Text classification as text-to-text: the label is written as a word.

One row of DATASETS says everything about a dataset. An example is
'<task> <field>: <text>' and its target the label's word, as T5 formats its own
classification tasks.
"""

import dataclasses
import functools

import seqio
import tensorflow as tf
from mtf_conv.tasks import metrics, tfds_source

from mtf_conv import vocabulary


@dataclasses.dataclass(frozen=True)
class Dataset:
  """How a TFDS dataset becomes a task.

  Attributes:
    tfds_name: 'name:version' or 'name/config:version'.
    splits: from SeqIO's names of the splits to TFDS's.
    text: TFDS's feature with the text.
    label: TFDS's feature with the number of the label.
    prefix: what the input starts with.
    labels: the words of labels 0, 1, ...
  """

  tfds_name: str
  splits: dict
  text: str
  label: str
  prefix: str
  labels: tuple


DATASETS = {
    # TREC has no validation split. The paper's TREC scores are all whole over
    # 500, the size of the test split, so that is what `validation` means.
    'trec': Dataset(
        tfds_name='trec:1.0.0',
        splits={'train': 'train', 'validation': 'test', 'test': 'test'},
        text='text',
        label='label-fine',
        prefix='trec question: ',
        # TFDS's spelling and order. The paper counts 46 classes, the data has
        # 50 pairs coarse:fine, and these are the 47 different fine names.
        labels=(
            'manner', 'cremat', 'animal', 'exp', 'ind', 'gr', 'title', 'def',
            'date', 'reason', 'event', 'state', 'desc', 'count', 'other',
            'letter', 'religion', 'food', 'country', 'color', 'termeq', 'city',
            'body', 'dismed', 'mount', 'money', 'product', 'period',
            'substance', 'sport', 'plant', 'techmeth', 'volsize', 'instru',
            'abb', 'speed', 'word', 'lang', 'perc', 'code', 'dist', 'temp',
            'symbol', 'ord', 'veh', 'weight', 'currency')),
}


def to_text(examples, dataset):
  """Turns TFDS's examples into text-to-text ones.

  Args:
    examples: a tf.data.Dataset of TFDS's features.
    dataset: the Dataset that describes them.

  Returns:
    A tf.data.Dataset of {'inputs': string, 'targets': string}.
  """
  def convert(example):
    return {
        'inputs': tf.strings.join([dataset.prefix, example[dataset.text]]),
        'targets': tf.gather(dataset.labels, example[dataset.label]),
    }

  return examples.map(convert, num_parallel_calls=tf.data.AUTOTUNE)


def _add(name, dataset):
  seqio.TaskRegistry.add(
      name,
      source=tfds_source.PreparedTfdsDataSource(
          lambda: dataset.tfds_name, dataset.splits,
          remedy=f'run mtf_conv prepare {name} --data_dir={{data_dir}}'),
      preprocessors=[
          functools.partial(to_text, dataset=dataset),
          seqio.preprocessors.tokenize,
          seqio.CacheDatasetPlaceholder(),
          seqio.preprocessors.append_eos_after_trim,
      ],
      metric_fns=[
          functools.partial(metrics.label_accuracy, labels=dataset.labels)],
      output_features={
          'inputs': seqio.Feature(vocabulary.ConfiguredVocabulary()),
          'targets': seqio.Feature(vocabulary.ConfiguredVocabulary()),
      })


for _name, _dataset in DATASETS.items():
  _add(_name, _dataset)
