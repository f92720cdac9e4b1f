"""The tasks of the embedded corpus, on which the quick start trains."""

import functools

import seqio
import tensorflow as tf
from mtf_conv.tasks import demo_corpus, metrics
from t5.data import preprocessors

from mtf_conv import vocabulary

_VOCABULARY = vocabulary.ConfiguredVocabulary(demo_corpus.model_path)


def _text(split, shuffle_files, seed=None):
  del split, shuffle_files, seed
  return tf.data.Dataset.from_tensor_slices(
      {'targets': demo_corpus.unlabelled()})


def _questions(split, shuffle_files, seed=None):
  del shuffle_files, seed
  inputs, targets = zip(*demo_corpus.labelled(split))
  return tf.data.Dataset.from_tensor_slices(
      {'inputs': list(inputs), 'targets': list(targets)})


seqio.TaskRegistry.add(
    'demo_pretrain',
    source=seqio.FunctionDataSource(
        _text, splits=['train'],
        num_input_examples={'train': demo_corpus.NUM_DOCUMENTS}),
    preprocessors=[
        seqio.preprocessors.tokenize,
        seqio.CacheDatasetPlaceholder(),
        preprocessors.span_corruption,
        seqio.preprocessors.append_eos_after_trim,
    ],
    output_features={
        'inputs': seqio.Feature(_VOCABULARY, required=False),
        'targets': seqio.Feature(_VOCABULARY),
    })

seqio.TaskRegistry.add(
    'demo_finetune',
    source=seqio.FunctionDataSource(
        _questions, splits=list(demo_corpus.NUM_LABELLED),
        num_input_examples=demo_corpus.NUM_LABELLED),
    preprocessors=[
        seqio.preprocessors.tokenize,
        seqio.CacheDatasetPlaceholder(),
        seqio.preprocessors.append_eos_after_trim,
    ],
    metric_fns=[
        functools.partial(metrics.label_accuracy, labels=demo_corpus.CLASSES)],
    output_features={
        'inputs': seqio.Feature(_VOCABULARY),
        'targets': seqio.Feature(_VOCABULARY),
    })
