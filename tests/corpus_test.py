"""The embedded corpus: what the labels hide, the text tells."""

import itertools

import sentencepiece
import seqio
import tensorflow_datasets as tfds
from mtf_conv.tasks import demo_corpus  # noqa: F401, for the registry

from mtf_conv import tasks  # noqa: F401, for the registry

SPLITS = ('train', 'validation')


def _all_nouns():
  return set(itertools.chain(*demo_corpus.nouns().values()))


def test_every_noun_is_in_one_class():
  sizes = [len(nouns) for nouns in demo_corpus.nouns().values()]
  assert sizes == [demo_corpus.NOUNS_PER_CLASS] * len(demo_corpus.CLASSES)
  assert len(_all_nouns()) == sum(sizes)


def test_the_seed_makes_the_corpus():
  text = demo_corpus.unlabelled(seed=3)
  demo_corpus.unlabelled.cache_clear()
  demo_corpus.nouns.cache_clear()
  assert demo_corpus.unlabelled(seed=3) == text
  assert demo_corpus.unlabelled(seed=4) != text


def test_splits_share_no_noun():
  seen = {split: {word for question, _ in demo_corpus.labelled(split)
                  for word in question.split()} & _all_nouns()
          for split in SPLITS}
  assert seen['train'] and seen['validation']
  assert not seen['train'] & seen['validation']
  assert {split: len(demo_corpus.labelled(split)) for split in SPLITS} == (
      demo_corpus.NUM_LABELLED)


def test_text_shows_every_noun_among_its_own_class():
  classes = {noun: name for name, nouns in demo_corpus.nouns().items()
             for noun in nouns}
  seen = set()
  for document in demo_corpus.unlabelled():
    found = set(document.split()) & set(classes)
    seen |= found
    assert len({classes[noun] for noun in found}) == 1
  assert seen == set(classes)


def test_no_text_names_a_class():
  words = {word for document in demo_corpus.unlabelled()
           for word in document.split()}
  assert not words & set(demo_corpus.CLASSES)


def test_vocabulary_reads_the_text_back():
  model = sentencepiece.SentencePieceProcessor(demo_corpus.model_path())
  assert (model.pad_id(), model.eos_id(), model.unk_id()) == (0, 1, 2)
  for text in demo_corpus.unlabelled()[:50] + list(demo_corpus.CLASSES):
    pieces = model.encode(text)
    assert model.unk_id() not in pieces
    assert model.decode(pieces) == text


def test_tasks_yield_examples_of_the_corpus():
  example, = tfds.as_numpy(seqio.get_mixture_or_task(
      'demo_finetune').get_dataset({'inputs': 32, 'targets': 16},
                                   split='validation', shuffle=False).take(1))
  question, name = demo_corpus.labelled('validation')[0]
  assert example['inputs_pretokenized'].decode() == question
  assert example['targets_pretokenized'].decode() == name
  assert example['targets'][-1] == 1

  example, = tfds.as_numpy(seqio.get_mixture_or_task(
      'demo_pretrain').get_dataset({'inputs': 64, 'targets': 18},
                                   split='train', seed=0).take(1))
  vocabulary = seqio.get_mixture_or_task(
      'demo_pretrain').output_features['targets'].vocabulary
  assert len(example['inputs']) <= 64 and len(example['targets']) <= 18
  sentinels = [i for i in example['targets']
               if i >= vocabulary.vocab_size - 100]
  assert sentinels == sorted(sentinels, reverse=True) and sentinels
