"""A SentencePiece model of 250 pieces, trained in a second."""

import random

import sentencepiece

_SYLLABLES = ('ba', 'ko', 'li', 'mu', 'ne', 'ro', 'sa', 'ti', 'vu', 'ze')


def words(count, seed=0):
  """Returns `count` words of two or three syllables, drawn from a seed."""
  rng = random.Random(seed)
  return [''.join(rng.choices(_SYLLABLES, k=rng.randint(2, 3)))
          for _ in range(count)]


def write(path, **overrides):
  """Trains a model that T5 can use and writes it to `path`."""
  text = [' '.join(words(20, seed)) for seed in range(200)]
  # Every printable ASCII character, so that no test text is unknown.
  text += [' '.join(map(chr, range(33, 127)))] * 2
  options = {'pad_id': 0, 'eos_id': 1, 'unk_id': 2, 'bos_id': -1, **overrides}
  with open(path, 'wb') as f:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=f, vocab_size=250,
        character_coverage=1.0, minloglevel=2, **options)
  return str(path)
