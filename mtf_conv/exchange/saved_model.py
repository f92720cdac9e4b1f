"""A trained model as a SavedModel: text in, text out, without this package.

TensorFlow and tensorflow-text load it and nothing else is needed: SentencePiece
and the weights are inside.

Mesh TensorFlow fixes all shapes when it builds a graph. So the rows of a
request are sorted by length and computed eight at a time, or as many as one
likes, the last ones filled up with copies; and the graph has the model several
times, for inputs of up to 16, 32, 64, ... tokens.

Of a tiny model a row alone takes 1.4 times as long as in a graph of one row at
a time, one of many a quarter of that. In the first request TensorFlow optimises
the graph: 3 seconds of a core for a tiny model, 15 for a small one.
"""

import functools
import os

import numpy as np
import tensorflow as tf
import tensorflow_text

from mtf_conv.answer import decoding
from mtf_conv.base import errors, files

_FILE = 'saved_model.pb'  # By which a SavedModel is known.
# Of each token of the targets, there are the logits of all ids.
_SCORED_TOKENS = 1 << 11
# What str.strip takes away: a line of nothing else has a blank answer.
_BLANK = r'[\pZ\t-\r\x1c-\x1f\x{85}]*'


class Graph:
  """The functions of a SavedModel, which TensorFlow traces.

  Attributes:
    longest: a dictionary, how many tokens 'inputs' and 'targets' have at most.
    module: a tf.Module with all that is to be saved.
  """

  def __init__(self, trained, engine, inputs_length=None, targets_length=None,
               truncate=False, batch_size=8, beam_size=1, alpha=0.6):
    """Reads the weights.

    Args:
      trained: a trained.Trained.
      engine: its engine.Engine.
      inputs_length: how many tokens inputs have at most; as many as in training
        when None.
      targets_length: the same of answers and of targets.
      truncate: whether to cut what is longer; else it is an error.
      batch_size: how many rows are computed at once, whatever a request has.
      beam_size: more than 1 for a beam search, else the likeliest token is
        taken each time.
      alpha: of the length penalty of a beam search.

    Raises:
      errors.UserError: the checkpoint is of another model, the vocabulary not
        one of SentencePiece, or a length too long for the model.
    """
    vocabulary = trained.vocabulary
    if not hasattr(vocabulary, 'sp_model'):
      raise errors.UserError(
          f'{trained.model_dir} was trained with {type(vocabulary).__name__}: '
          'only a SentencePieceVocabulary can be exported')
    longest = {'inputs': inputs_length, 'targets': targets_length}
    self.longest = {name: given or trained.lengths[name]
                    for name, given in longest.items()}
    for name, length in self.longest.items():
      engine.check_length(length, f'--{name}_length', 'give a smaller one')
    self._truncate = truncate
    self._batch_size = batch_size
    self._engine = engine
    self._size, self._unk = vocabulary.vocab_size, vocabulary.unk_id
    self._decode = functools.partial(
        decoding.sample, length=self.longest['targets'])
    if beam_size > 1:
      self._decode = functools.partial(
          decoding.beam, length=self.longest['targets'], beam_size=beam_size,
          alpha=alpha)
    self._buckets = sorted({
        engine.bucket(n) for n in range(1, self.longest['inputs'] + 1)})
    one = np.ones((1, 1), np.int32)
    self.module = tf.Module()
    self.module.tokenizer = tensorflow_text.SentencepieceTokenizer(
        vocabulary.sp_model)
    self.module.weights = {
        name: tf.Variable(value, trainable=False, name=name)
        for name, value in engine.weights(
            decoding.log_likelihoods, [one, one]).items()}
    for function, names in ((self.predict, ['inputs']),
                            (self.score, ['inputs', 'targets'])):
      setattr(self.module, function.__name__, tf.function(
          function, autograph=False, input_signature=[
              tf.TensorSpec([None], tf.string, name) for name in names]))

  def predict(self, inputs):
    """Answers texts.

    Args:
      inputs: a string tf.Tensor, shape [rows].

    Returns:
      A dictionary, 'outputs': a string tf.Tensor, shape [rows].
    """
    answers = self._in_parts(
        self._decode, self.text, tf.string, self._batch_size,
        self._ids(inputs, 'inputs'))
    is_blank = tf.strings.regex_full_match(inputs, _BLANK)
    return {'outputs': tf.where(is_blank, '', answers)}

  def text(self, ids):
    """Makes text of what was decoded.

    Args:
      ids: an int32 tf.Tensor, shape [rows, length] or [rows, beam, length].

    Returns:
      A string tf.Tensor, shape [rows], of the best beam.
    """
    if len(ids.shape) == 3:
      ids = ids[:, 0]
    ended = tf.cumsum(tf.cast(ids == decoding.EOS, tf.int32), axis=1) > 0
    # The logits are of more ids than there are pieces.
    known = tf.where(ids < self._size, ids, self._unk)
    return self.module.tokenizer.detokenize(
        tf.ragged.boolean_mask(known, (ids != 0) & ~ended))

  def score(self, inputs, targets):
    """Scores targets.

    Args:
      inputs: a string tf.Tensor, shape [rows].
      targets: a string tf.Tensor, shape [rows].

    Returns:
      A dictionary, 'scores': the log-likelihoods of the targets with their
      ends, a float32 tf.Tensor, shape [rows].
    """
    tf.debugging.assert_equal(
        tf.size(inputs), tf.size(targets),
        message='there must be as many targets as inputs')
    rows = max(1, min(self._batch_size,
                      _SCORED_TOKENS // self.longest['targets']))
    return {'scores': self._in_parts(
        decoding.log_likelihoods, lambda x: tf.reduce_sum(x, axis=1),
        tf.float32, rows, self._ids(inputs, 'inputs'),
        self._ids(targets, 'targets'))}

  def _ids(self, texts, name):
    """Returns the ids of texts with their ends, [rows, (length)]."""
    longest = self.longest[name]
    ids = self.module.tokenizer.tokenize(tf.strings.unicode_transcode(
        texts, 'UTF-8', 'UTF-8', errors='strict'))
    if self._truncate:
      ids = ids[:, :longest - 1]
    ids = tf.concat([ids, tf.fill([ids.nrows(), 1], decoding.EOS)], axis=1)
    length = tf.reduce_max(ids.row_lengths())
    tf.debugging.Assert(length <= longest, [tf.strings.format(
        f'{name} of {{}} tokens: the model was exported for at most {longest} '
        f'(mtf_conv export --{name}_length, --truncate)', length)])
    return ids

  def _in_parts(self, build, finish, dtype, size, *rows):
    """Computes a function of fixed shapes for any number of rows.

    Args:
      build: the function, one of module decoding.
      finish: what makes a tf.Tensor [size] of its first output.
      dtype: of that tf.Tensor.
      size: how many rows are computed at once.
      *rows: ids, tf.RaggedTensors [rows, (length)], inputs first.

    Returns:
      A tf.Tensor [rows].
    """
    number = tf.cast(rows[0].nrows(), tf.int32)
    order = tf.argsort(rows[0].row_lengths())

    def outputs(chosen, *lengths):
      with tf.compat.v1.variable_scope('', custom_getter=self._variable):
        return self._engine.outputs(build, [
            ids.to_tensor(shape=[size, length])
            for ids, length in zip(chosen, lengths)])[0]

    def part(start):
      numbers = tf.minimum(tf.range(start, start + size), number - 1)
      chosen = [tf.gather(ids, tf.gather(order, numbers)) for ids in rows]
      longest = tf.cast(tf.reduce_max(chosen[0].row_lengths()), tf.int32)
      bucket = tf.math.count_nonzero(longest > self._buckets, dtype=tf.int32)
      return finish(tf.switch_case(bucket, [
          functools.partial(outputs, chosen, length, self.longest['targets'])
          for length in self._buckets]))

    # One after the other: memory does not grow with the request.
    found = tf.map_fn(
        part, tf.range(0, number, size), parallel_iterations=1,
        fn_output_signature=tf.TensorSpec([size], dtype))
    return tf.gather(tf.reshape(found, [-1]),
                     tf.math.invert_permutation(order))

  def _variable(self, getter, name, **unused):  # As TensorFlow calls it.
    return self.module.weights[name]


def write(trained, engine, out_dir, overwrite=False, **options):
  """Writes a SavedModel.

  Args:
    trained: a trained.Trained.
    engine: its engine.Engine.
    out_dir: a folder of this machine that does not exist yet, or is empty.
    overwrite: whether it may hold a SavedModel, which is then replaced.
    **options: of Graph.

  Returns:
    A dictionary, how many tokens 'inputs' and 'targets' have at most.

  Raises:
    errors.UserError: see Graph; or out_dir holds something, or cannot be
      written. What was there is kept.
  """
  if not overwrite and os.path.exists(os.path.join(out_dir, _FILE)):
    raise errors.UserError(
        f'{out_dir} holds a SavedModel and is kept: --overwrite replaces it')
  try:
    with files.new_folder(out_dir, replaces=_FILE) as new:
      graph = Graph(trained, engine, **options)
      module = graph.module
      tf.saved_model.save(module, str(new), signatures={
          'serving_default': module.predict, 'predict': module.predict,
          'score': module.score})
  except (OSError, tf.errors.OpError) as error:
    raise errors.UserError(
        f'{out_dir} cannot be written: ' + str(error).partition('\n')[0]
    ) from error
  return graph.longest
