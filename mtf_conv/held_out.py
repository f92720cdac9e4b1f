"""The loss on held-out text during pre-training, beside what counting reaches.

A target of span corruption has two kinds of positions. Those with the text that
was taken out are its content; sentinels and the end, which say where it stood,
are soon learnt. The mean over both falls while a model learns no language, so
they are told apart, and the content has two lines to be compared with: the loss
of who knows how frequent each piece is (unigram), and of who also knows the
piece before (bigram).
"""

import itertools
import os

import gin
import mesh_tensorflow as mtf
import numpy as np
import seqio
import tensorflow.compat.v1 as tf
import tensorflow_datasets as tfds
from mesh_tensorflow.transformer import transformer, utils

from mtf_conv import loss, vocabulary
from mtf_conv.base import autograph, errors, terminal
from mtf_conv.model_dir import held_out
from mtf_conv.tasks import span_corruption

_BATCH = 32
_EOS = 1  # Mesh TensorFlow's.


@gin.configurable(module='mtf_conv.held_out')
class HeldOutLoss(tf.train.CheckpointSaverListener):
  """Measures each checkpoint of a training on text that it does not train on.

  For gin: `mtf_conv.training.train_model.held_out = @HeldOutLoss`.

  Attributes:
    measured: as model_dir.held_out describes it.
  """

  def __init__(self, model_dir, id_vocabulary, sequence_length,
               task=gin.REQUIRED, split='validation', sequences=256,
               counted_tokens=5_000_000):
    """Constructor; counts n-grams unless an earlier start has.

    Args:
      model_dir: the folder of the checkpoints.
      id_vocabulary: a seqio.Vocabulary, or a pair of them that are the same.
      sequence_length: a dict with the lengths of 'inputs' and 'targets'.
      task: the name of a task with span corruption.
      split: the one that is held out.
      sequences: how many of it are read, the same ones each time.
      counted_tokens: at most so many of the training text are counted.

    Raises:
      errors.UserError: the task lacks the split, or it holds no sequence.
    """
    self._model_dir = model_dir
    self._vocabulary = (
        id_vocabulary[0] if isinstance(id_vocabulary, (tuple, list))
        else id_vocabulary)
    task = seqio.get_mixture_or_task(task)
    if split not in task.splits:
      raise errors.UserError(
          f'{task.name} has no split {split!r} to hold out: it has '
          f'{", ".join(task.splits)}; without one, set '
          'mtf_conv.training.train_model.held_out = None')
    self._examples = _examples(task, split, sequence_length, sequences)
    if not len(self._examples['targets']):
      raise errors.UserError(
          f'{task.name}: the split {split!r} is too short for one sequence of '
          f'{sequence_length["inputs"]} inputs')
    self._evaluate = None
    self.measured = held_out.read(model_dir)
    if not self.measured:
      terminal.say('Counting pieces and pairs of pieces of the text')
      unigram, bigram = ngram_losses(
          *(_tokens(task, name, self._vocabulary, counted_tokens)
            for name in ('train', split)), self._vocabulary.vocab_size)
      self.measured = {'unigram': unigram, 'bigram': bigram, 'checkpoints': []}

  def after_save(self, session, global_step_value):
    """Measures the checkpoint that was just written."""
    del session
    step = int(global_step_value)
    checkpoints = [c for c in self.measured['checkpoints'] if c['step'] < step]
    self._evaluate = self._evaluate or _Evaluation(
        self._examples, self._vocabulary)
    result = self._evaluate(os.path.join(self._model_dir, f'model.ckpt-{step}'))
    self.measured['checkpoints'] = [*checkpoints, {'step': step, **result}]
    held_out.write(self._model_dir, self.measured)
    writer = tf.summary.FileWriterCache.get(self._model_dir)
    lines = {name: self.measured[name] for name in ('unigram', 'bigram')}
    for name, value in {**result, **lines}.items():
      writer.add_summary(tf.Summary(value=[tf.Summary.Value(
          tag=f'held_out/{name}', simple_value=value)]), step)
    writer.flush()

  def end(self, session, global_step_value):
    """Says what the numbers mean."""
    del session, global_step_value
    terminal.say(f'{self._model_dir}: {held_out.describe(self.measured)}')

  def latest(self):
    """Returns the content loss of the last checkpoint; None before it."""
    checkpoints = self.measured['checkpoints']
    return checkpoints[-1]['content'] if checkpoints else None


def _examples(task, split, sequence_length, count):
  """Returns arrays [count, length] of a task's first examples."""
  with tf.Graph().as_default():
    dataset = autograph.avoid(lambda: seqio.trim_and_pad_dataset(
        task.get_dataset(sequence_length, split, shuffle=False, seed=0,
                         use_cached=False), sequence_length))
    found = list(itertools.islice(tfds.as_numpy(dataset), count))
  return {name: np.array([example[name] for example in found], np.int32)
          for name in ('inputs', 'targets')}


def _tokens(task, split, id_vocabulary, count):
  """Yields the ids of documents, as they are before corruption."""
  for document in span_corruption.documents(task, split):
    ids = id_vocabulary.encode(document)
    yield ids
    count -= len(ids)
    if count <= 0:
      return


def ngram_losses(train, other, size):
  """Measures what counting pieces and pairs of pieces predicts.

  Frequencies of pieces have one added to each; those of pairs fall back on them
  as Witten and Bell do: the more kinds of pieces follow one, the more.

  Args:
    train: an iterable of integer arrays, documents.
    other: another one, of held-out documents.
    size: the number of ids.

  Returns:
    (unigram, bigram), mean losses of a held-out token, in nats; the first token
    of a document is scored by its frequency in both.
  """
  counts = np.zeros(size, np.int64)
  pairs = []
  for document in train:
    document = np.asarray(document, np.int64)
    counts += np.bincount(document, minlength=size)
    pairs.append(document[:-1] * size + document[1:])
  pairs, pair_counts = np.unique(np.concatenate(pairs), return_counts=True)
  firsts = pairs // size
  followers = np.bincount(firsts, minlength=size)
  before = np.bincount(firsts, pair_counts, minlength=size)
  frequencies = (counts + 1) / (counts.sum() + size)

  unigram, bigram, tokens = 0., 0., 0
  for document in other:
    document = np.asarray(document, np.int64)
    alone = frequencies[document]
    wanted = document[:-1] * size + document[1:]
    places = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    seen = np.where(pairs[places] == wanted, pair_counts[places], 0)
    kinds = np.maximum(followers[document[:-1]], 1)
    together = (seen + kinds * alone[1:]) / (before[document[:-1]] + kinds)
    unigram -= np.log(alone).sum()
    bigram -= np.log(alone[:1]).sum() + np.log(together).sum()
    tokens += len(document)
  return unigram / tokens, bigram / tokens


class _Evaluation:
  """Teacher-forced losses of the model of the gin files, on one device."""

  def __init__(self, examples, id_vocabulary):
    """Builds the graph, which is kept for all checkpoints."""
    self._examples = examples
    size = id_vocabulary.vocab_size
    self._first_sentinel = size - vocabulary.EXTRA_IDS
    with tf.Graph().as_default():
      graph = mtf.Graph()
      mesh = mtf.Mesh(graph, 'held_out')
      dtype = utils.get_variable_dtype()
      model = transformer.make_bitransformer(size, size)
      ids = {name: tf.placeholder(tf.int32, [_BATCH, array.shape[1]])
             for name, array in examples.items()}
      inputs, targets = (mtf.import_tf_tensor(mesh, ids[name], mtf.Shape([
          mtf.Dimension('batch', _BATCH),
          mtf.Dimension('length', examples[name].shape[1])]))
          for name in ('inputs', 'targets'))
      logits, _ = model.call_simple(
          inputs, targets, compute_loss=False, mode='eval',
          variable_dtype=dtype)
      losses = loss.softmax_cross_entropy(
          logits, targets, logits.shape.dims[-1])
      mesh_impl = mtf.placement_mesh_impl.PlacementMeshImpl([], [], [''])
      lowering = mtf.Lowering(graph, {mesh: mesh_impl})
      self._losses = lowering.export_to_tf_tensor(losses)
      self._ids = ids
      self._loads = lowering.copy_masters_to_slices()
      self._saver = tf.train.Saver(tf.global_variables())
      self._session = tf.Session()

  def __call__(self, checkpoint):
    """Returns the mean losses of a checkpoint, by kind of position."""
    self._saver.restore(self._session, checkpoint)
    self._session.run(self._loads)
    count = len(self._examples['targets'])
    rows = np.arange(-(-count // _BATCH) * _BATCH) % count  # Whole batches.
    losses = np.concatenate([
        self._session.run(self._losses, {
            self._ids[name]: array[rows[start:start + _BATCH]]
            for name, array in self._examples.items()})
        for start in range(0, len(rows), _BATCH)])[:count]
    targets = self._examples['targets']
    kinds = {'all': targets > 0, 'sentinels': (
        targets == _EOS) | (targets >= self._first_sentinel)}
    kinds['content'] = kinds['all'] & ~kinds['sentinels']
    return {kind: float(losses[where].mean()) for kind, where in kinds.items()}
