"""What is answered: predictions, scores, embeddings.

Each class turns a record into the rows that the model reads, and what it makes
of them into a line of output. Module loop does the rest.
"""

import functools
import io
import math

import numpy as np

from mtf_conv.answer import decoding, records
from mtf_conv.base import errors

_GROUP = 10_000  # Rows of a row group of Parquet.


class _Verb:
  """What is done with a record.

  Attributes:
    fields: the names of what is read of a record.
    build: the function of module decoding that reads rows.
    tokens: how many a batch may have, for each part of a row.
    copies: how many rows a record has, if it has any.
  """

  tokens = (1 << 14, 1 << 14)
  copies = 1

  def __init__(self, trained, engine, fields, truncate=False):
    """Keeps what rows are made with.

    Args:
      trained: a trained.Trained.
      engine: its engine.Engine.
      fields: the names of the inputs, and of the targets if they are read.
      truncate: whether to cut inputs and targets to the trained lengths.
    """
    self.fields = tuple(fields)
    self._notes = {}  # How often it was, by what is to be said.
    self._vocabulary = trained.vocabulary
    self._lengths = trained.lengths
    self._engine = engine
    self._truncate = truncate

  def _ids(self, text, place, feature='inputs'):
    """Returns the ids of a text and its end, as T5 makes them."""
    ids = [*self._vocabulary.encode(text), decoding.EOS]
    longest = self._lengths[feature]
    if len(ids) > longest and self._truncate:
      self._note(f'{feature} were cut to {longest} tokens')
      ids = [*ids[:longest - 1], decoding.EOS]
    elif len(ids) > longest:
      self._note(f'{feature} are longer than the {longest} tokens that the '
                 'model was trained on, and were read whole (--truncate cuts '
                 'them)')
    self._engine.check_length(len(ids), place, '--truncate cuts it')
    return np.array(ids, np.int32)

  def header(self, unused_records):
    """Returns what a file of so many answers begins with, bytes."""
    return b''

  def converted(self, path):
    """Returns the file that is to have the output's name."""
    return path

  def _note(self, what):
    self._notes[what] = self._notes.get(what, 0) + 1

  def notes(self):
    """Returns what is to be said at the end, a list of lines."""
    return [f'{count:,} {what}' for what, count in self._notes.items()]


class Predict(_Verb):
  """Decodes an answer to each input: the likeliest, drawn ones, or beams."""

  def __init__(self, trained, engine, form, fields=('inputs',), truncate=False,
               decode_length=None, scores=False, temperature=0.0, top_k=0,
               top_p=1.0, seed=0, beam_size=1, alpha=0.6, num_return=1):
    """Chooses how to decode.

    Args:
      trained: a trained.Trained.
      engine: its engine.Engine.
      form: of the output, one of records.FORMATS.
      fields: the name of the inputs.
      truncate: whether to cut inputs to the trained length.
      decode_length: how many tokens an answer has at most; as many as the
        targets in training when None.
      scores: whether to write them.
      temperature: 0 for the likeliest token each time; else tokens are drawn.
      top_k: see decoding.draw.
      top_p: see decoding.draw.
      seed: of what is drawn, with the number of the record: a record has the
        same answer in any batch.
      beam_size: more than 1 for a beam search.
      alpha: of the length penalty of a beam search.
      num_return: how many answers a record gets.

    Raises:
      errors.UserError: values that do not go together.
    """
    super().__init__(trained, engine, fields, truncate)
    self._form = form
    self._length = decode_length or trained.lengths['targets']
    self._seed = None
    self._num_return = num_return
    self._scores = scores or num_return > 1
    engine.check_length(self._length, '--decode_length', 'give a smaller one')
    if form == 'text' and self._scores:
      raise errors.UserError(
          'text has one answer a line: --scores and --num_return need an '
          '--output of .tsv or .jsonl, or --output_format')
    if beam_size > 1:
      if temperature:
        raise errors.UserError(
            f'--temperature (={temperature}) is for answers that are drawn, '
            f'and --beam_size (={beam_size}) for a search: give one of them')
      if num_return > beam_size:
        raise errors.UserError(
            f'--num_return (={num_return}) must be at most --beam_size '
            f'(={beam_size})')
      self.build = functools.partial(
          decoding.beam, length=self._length, beam_size=beam_size, alpha=alpha,
          all_beams=num_return > 1)
      return
    if not temperature and (top_k or top_p < 1 or num_return > 1):
      raise errors.UserError(
          '--top_k, --top_p and --num_return are for answers that are drawn or '
          'searched: give --temperature=1, or --beam_size')
    if temperature:
      self._seed = seed
      self.copies = num_return
    self.build = functools.partial(
        decoding.sample, length=self._length, scores=self._scores,
        temperature=temperature, top_k=top_k, top_p=top_p)

  def rows(self, record):
    """Returns the rows of a record, tuples of arrays; none if it is blank."""
    if record.is_blank:
      return []
    ids = self._ids(record.texts[0], record.place)
    if self._seed is None:
      return [(ids,)]
    return [(ids, np.random.default_rng([self._seed, record.number, copy])
             .random(self._length, np.float32)) for copy in range(self.copies)]

  def line(self, record, unused_rows, results):
    """Returns the line of a record from what its rows gave, bytes."""
    found = [self._answer(*result) for result in _beams(results)]
    found = found[:self._num_return] or [('', None)]
    if self._num_return > 1:
      answer = {'predictions': [text for text, _ in found],
                'scores': [score for _, score in found]}
    else:
      (text, score), = found
      answer = {'prediction': text}
      if self._scores:
        answer['score'] = score
    return records.write(self._form, self.fields, record, answer)

  def _answer(self, ids, score=None):
    ids = ids.tolist()
    if decoding.EOS not in ids:
      self._note(f'answers did not end within {self._length} tokens, where '
                 'they are cut (--decode_length)')
    return (self._vocabulary.decode([i for i in ids if i]),
            None if score is None else float(score))


def _beams(results):
  """Yields (ids) or (ids, score) of each beam that there is."""
  for ids, *scores in results:
    if ids.ndim == 1:
      yield ids, *scores
    else:
      yield from ((beam, score) for beam, score in zip(ids, *scores)
                  if score > decoding.UNFINISHED)


class Score(_Verb):
  """The log-likelihood of given targets, or of each of some classes."""

  # Of each token of the targets, there are the logits of all ids.
  tokens = (1 << 14, 1 << 11)
  build = staticmethod(decoding.log_likelihoods)

  def __init__(self, trained, engine, form, fields=('inputs', 'targets'),
               truncate=False, classes=None):
    """Chooses what is scored.

    Args:
      trained: a trained.Trained.
      engine: its engine.Engine.
      form: of the output, one of records.FORMATS.
      fields: the names of the inputs and of the targets.
      truncate: whether to cut both to the trained lengths.
      classes: texts that are the targets of each record; None for its own.

    Raises:
      errors.UserError: classes that cannot be told apart.
    """
    super().__init__(trained, engine, fields[:1] if classes else fields,
                     truncate)
    self._form = form
    self._classes = classes
    if not classes:
      return
    self.copies = len(classes)
    self._targets = [
        self._ids(name, f'--classes: {name!r}', 'targets') for name in classes]
    known = {}
    for name, ids in zip(classes, self._targets):
      if trained.vocabulary.unk_id in ids:
        raise errors.UserError(
            f"--classes: {name!r} has characters that the model's vocabulary "
            'does not know')
      if tuple(ids) in known:
        raise errors.UserError(
            f'--classes: {known[tuple(ids)]!r} and {name!r} are the same '
            "tokens in the model's vocabulary")
      known[tuple(ids)] = name

  def rows(self, record):
    """Returns the rows of a record, tuples of arrays; none if it is blank."""
    if record.is_blank:
      return []
    inputs = self._ids(record.texts[0], record.place)
    targets = self._targets if self._classes else [
        self._ids(record.texts[1], record.place, 'targets')]
    return [(inputs, each) for each in targets]

  def line(self, record, rows, results):
    """Returns the line of a record from what its rows gave, bytes."""
    if self._classes:
      answer = self._ranked([scores.sum(dtype=float) for scores, in results])
    else:
      answer = self._scored(*rows, *results)
    return records.write(self._form, self.fields, record, answer)

  def _ranked(self, scores):
    if not scores:  # A blank line.
      return {'prediction': '', 'probabilities': dict.fromkeys(self._classes)}
    likelihoods = np.exp(np.array(scores) - max(scores))
    answer = {
        'prediction': self._classes[int(np.argmax(scores))],
        'probabilities': dict(zip(
            self._classes, (likelihoods / likelihoods.sum()).tolist()))}
    if self._form == 'jsonl':
      answer['scores'] = dict(zip(self._classes, scores))
    return answer

  def _scored(self, row=None, result=None):
    if row is None:  # A blank line.
      return {'score': None}
    (_, ids), (scores,) = row, result
    answer = {'score': math.fsum(scores)}
    if self._form == 'jsonl':
      answer['tokens'] = [self._piece(i) for i in ids.tolist()]
      answer['token_scores'] = scores[:len(ids)].tolist()
    return answer

  def _piece(self, i):
    tokenizer = getattr(self._vocabulary, 'tokenizer', None)
    return tokenizer.IdToPiece(i) if tokenizer else self._vocabulary.decode([i])


class Embed(_Verb):
  """The mean state of the encoder, as a file of NumPy or of Parquet."""

  build = staticmethod(decoding.mean_state)

  def __init__(self, trained, engine, form, fields, truncate=False):
    """Keeps what rows are made with.

    Args:
      trained: see _Verb.
      engine: see _Verb.
      form: 'npy' or 'parquet'.
      fields: see _Verb.
      truncate: see _Verb.
    """
    super().__init__(trained, engine, fields, truncate)
    self._form = form

  def header(self, records):
    """Returns what a .npy file of so many vectors begins with, bytes."""
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, {
        'descr': '<f4', 'fortran_order': False,
        'shape': (records, self._engine.d_model)})
    return content.getvalue()

  def converted(self, path):
    """Returns a .npy file as the file that was asked for."""
    if self._form == 'npy':
      return path
    import pyarrow
    from pyarrow import parquet
    vectors = np.load(path, mmap_mode='r')
    kind = pyarrow.list_(pyarrow.float32(), self._engine.d_model)
    schema = pyarrow.schema([pyarrow.field('state', kind)])
    with parquet.ParquetWriter(f'{path}.parquet', schema) as writer:
      for start in range(0, len(vectors), _GROUP):
        values = pyarrow.array(np.ravel(vectors[start:start + _GROUP]))
        writer.write_table(pyarrow.table(
            [pyarrow.FixedSizeListArray.from_arrays(values, type=kind)],
            schema=schema))
    return f'{path}.parquet'

  def rows(self, record):
    """Returns the rows of a record: one, which a blank line has too."""
    return [(self._ids(record.texts[0], record.place),)]

  def line(self, unused_record, unused_rows, results):
    """Returns the bytes of a record's vector."""
    (vector,), = results
    return vector.astype('<f4').tobytes()
