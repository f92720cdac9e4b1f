"""Trains a SentencePiece model that T5 can use, and says what it can write."""

import collections
import io
import itertools
import os
import textwrap

import sentencepiece
import seqio

from mtf_conv import (
  tasks,  # noqa: F401, registers
  vocabulary,
)
from mtf_conv.base import documents, errors, files
from mtf_conv.tasks import metrics, span_corruption

# SentencePiece leaves out what has more bytes; a character has up to four.
_CHARACTERS, _BYTES = 1000, 4000
_SENTENCES = 1_000_000  # It trains on so many at most, drawn at random.
_SAMPLE = 20_000  # Sentences on which the finished model is measured.
_SHOWN = 20  # Characters and labels that are listed.


def documents_of_files(text):
  """Returns a function that yields the documents of text files.

  Args:
    text: globs of text files, parted by commas; see base.documents.

  Raises:
    errors.UserError: there is no such text.
  """
  paths = documents.expand(text)
  return lambda: itertools.chain.from_iterable(
      map(documents.read_documents, paths))


def documents_of_task(name):
  """Returns a function that yields the training text of a task.

  Args:
    name: of a task that pre-trains on the field 'text' of its source.

  Raises:
    errors.UserError: there is no such task, or it has no text.
  """
  names = seqio.TaskRegistry.names()
  if name not in names:
    raise errors.UserError(
        f'unknown task {name!r}{errors.nearest(name, names)}')
  task = seqio.TaskRegistry.get(name)
  inputs = task.output_features.get('inputs')
  if inputs and inputs.required:
    raise errors.UserError(f'{name} does not pre-train on text')

  return lambda: span_corruption.documents(task, 'train')


def train(documents, source, size, path, lowercase=False,
          character_coverage=0.9995):
  """Trains a model and prints what it can write.

  Padding, end and unknown are 0, 1 and 2, and no piece begins a sequence: the
  ids that T5 expects. Its sentinels are not among the pieces. Printable ASCII
  always is: labels and logical forms are written in it.

  Args:
    documents: a function that yields strings, the same ones each time.
    source: what they are called.
    size: the number of pieces.
    path: where the model is written, whole or not at all.
    lowercase: whether it takes upper case for lower case.
    character_coverage: of the text by characters that are pieces; the others
      are unknown.

  Raises:
    errors.UserError: there is no text, or too little or too much of it for that
      many pieces.
  """
  if next(_sentences(documents()), None) is None:
    raise errors.UserError(f'{source} holds no text')
  ascii_characters = ''.join(map(chr, range(33, 127)))
  model = io.BytesIO()
  try:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=_sentences(documents()), model_writer=model,
        vocab_size=size, pad_id=0, eos_id=1, unk_id=2, bos_id=-1,
        normalization_rule_name='nmt_nfkc_cf' if lowercase else 'nmt_nfkc',
        required_chars=(
            ascii_characters.lower() if lowercase else ascii_characters),
        character_coverage=character_coverage, max_sentence_length=_BYTES,
        input_sentence_size=_SENTENCES, minloglevel=2)
  except RuntimeError as error:
    reason = str(error).splitlines()[0].rpartition('] ')[2]
    raise errors.UserError(
        f'no vocabulary of --size={size} can be trained on {source}: {reason}'
    ) from error
  path = os.path.abspath(os.path.expanduser(path))
  os.makedirs(os.path.dirname(path), exist_ok=True)
  files.write_whole(path, model.getvalue())
  print(f'{path}: {size} pieces, sha256 {files.sha256(path)}')
  for line in _findings(
      vocabulary.ConfiguredVocabulary(lambda: path), documents):
    print(line)
  print(f'To use it: export MTF_CONV_VOCAB={path}')


def _sentences(documents):
  """Yields the lines of documents, long ones in parts of whole words."""
  for document in documents:
    for line in document.splitlines():
      if len(line) <= _CHARACTERS:
        yield line
      else:
        yield from textwrap.wrap(line, _CHARACTERS, break_on_hyphens=False)


def _findings(vocab, documents):
  """Yields lines on how short and how faithfully a vocabulary writes.

  Args:
    vocab: a seqio.SentencePieceVocabulary.
    documents: a function that yields strings.
  """
  words = pieces = 0
  characters = collections.Counter()
  for sentence in itertools.islice(_sentences(documents()), _SAMPLE):
    words += len(sentence.split())
    pieces += len(vocab.encode(sentence))
    characters.update(sentence)
  yield f'A word takes {pieces / words:.2f} pieces.'
  unknown = {character: count for character, count in characters.most_common()
             if vocab.unk_id in vocab.encode(character)}
  if unknown:
    share = sum(unknown.values()) / sum(characters.values())
    yield (f'It cannot write {len(unknown)} of {len(characters)} characters, '
           f'{100 * share:.3f}% of the text: {_listed(map(repr, unknown))}')
  else:
    yield f'It can write all {len(characters)} characters of the text.'
  for name in sorted(seqio.TaskRegistry.names()):
    task = seqio.TaskRegistry.get(name)
    # Tasks with a vocabulary of their own do not use this one.
    if task.output_features['targets'].vocabulary != (
        vocabulary.ConfiguredVocabulary()):
      continue
    labels = metrics.labels_of(task)
    changed = vocabulary.changed(vocab, labels)
    if changed:
      yield (f'It cannot write {len(changed)} of {len(labels)} labels of '
             f'{name}: ' + _listed(f'{label!r} comes back as {other!r}'
                 for label, other in changed.items()))


def _listed(texts):
  texts = list(texts)
  more = len(texts) - _SHOWN
  return ', '.join(texts[:_SHOWN]) + (f' and {more} more' if more > 0 else '')
