r"""The embedded corpus: English sentences about things that do not exist.

Its nouns are invented, as in 'the farmer feeds the mabi in the barn .', and
every noun belongs to one of the classes CLASSES. The text is made from a seed;
nothing is read from a file or from the network.

What pre-training teaches: the class of a noun. No sentence of the unlabelled
text states it, but the verbs and nouns around an animal are not those around a
tool, so that filling in masked spans sorts the nouns into their classes. What
stands next to a noun is enough for that, within the reach of two convolutions
of size 7.

What fine-tuning asks for: the class of the noun in a question. Three questions
in ten have a verb that gives it away ('what does a mabi eat ?'): these can be
learned from the labelled questions alone. The others ('what is a mabi ?') can
be answered by those only who know the noun, and the nouns of the validation
questions are in no labelled training question.
"""

import functools
import hashlib
import io
import os
import random

import sentencepiece

from mtf_conv import vocabulary
from mtf_conv.base import files

CLASSES = ('animal', 'food', 'tool', 'place', 'garment', 'illness')

NOUNS_PER_CLASS = 40
LABELLED_NOUNS_PER_CLASS = 10
NUM_DOCUMENTS = 2000
SENTENCES_PER_DOCUMENT = 8
NUM_LABELLED = {'train': 240, 'validation': 500}

# In a template, '<animal>' is an invented noun of that class, '<any>' one of
# the class at hand; '[person]' is a word of the list in _WORDS.
_WORDS = {
    'person': ('farmer', 'teacher', 'nurse', 'child', 'neighbour', 'girl',
               'boy', 'old man', 'woman', 'traveller'),
    'time': ('today', 'every day', 'in the morning', 'at night', 'last week',
             'in winter', 'once again', 'all summer'),
    'thing': ('wood', 'rope', 'paper', 'wire', 'stone', 'bread'),
    'taste': ('sweet', 'salty', 'bitter', 'spicy'),
    'mood': ('hungry', 'wild', 'tame', 'sleepy'),
    'look': ('warm', 'woollen', 'tight', 'torn'),
}

_SENTENCES = {
    'animal': (
        'the [person] feeds the <animal> [time] .',
        'a [mood] <animal> sleeps in the barn .',
        'the <animal> runs after a <animal> and bites it .',
        'the young of a <animal> drink milk [time] .',
        'the tail of the <animal> is long .',
        'a [mood] <animal> chases the [person] .',
        'hunters hear the <animal> growl [time] .',
    ),
    'food': (
        'the [person] eats a [taste] <food> [time] .',
        'we cook the <food> with salt and a <food> .',
        'a [taste] <food> tastes good with butter .',
        'she boils the <food> for an hour .',
        'the <food> on my plate is [taste] .',
        'the [person] orders soup and a <food> .',
        'slices of <food> are served for dinner [time] .',
    ),
    'tool': (
        'the [person] cuts the [thing] with a <tool> .',
        'he repairs the engine with a <tool> [time] .',
        'the handle of the <tool> is broken .',
        'to bend [thing] you need a sharp <tool> .',
        'the workshop has a <tool> and a <tool> .',
        'she grips the <tool> and turns the screw .',
        'use the <tool> to drill through [thing] .',
    ),
    'place': (
        'the [person] travels to <place> [time] .',
        'the road from <place> to <place> is closed .',
        'many people live in <place> [time] .',
        'the mayor of <place> opens the bridge .',
        'the train stops in <place> [time] .',
        'houses in <place> are cheap .',
        'the [person] was born near <place> .',
    ),
    'garment': (
        'the [person] wears a [look] <garment> [time] .',
        'she sews a button on the <garment> .',
        'the sleeves of the <garment> are [look] .',
        'he washes and irons the <garment> [time] .',
        'a [look] <garment> hangs in the wardrobe .',
        'the tailor makes a <garment> of silk .',
        'put on your <garment> and a <garment> .',
    ),
    'illness': (
        'the [person] suffers from <illness> [time] .',
        'the doctor treats <illness> with pills .',
        'fever is a sign of <illness> .',
        'many patients with <illness> also have <illness> .',
        'a vaccine against <illness> is tested [time] .',
        'the [person] recovers from <illness> slowly .',
        'doctors fear that <illness> is spreading .',
    ),
}
# What can be said of anything; it teaches the words of the questions.
_NEUTRAL_SENTENCES = (
    'i have never heard of <any> .',
    'what do you know about <any> ?',
    'the [person] tells me about <any> [time] .',
    'there is a book on <any> .',
    'please explain to me what <any> is .',
)

_NEUTRAL_QUESTIONS = (
    'what is <any> ?',
    'what do you know about <any> ?',
    'what kind of thing is <any> ?',
    'please explain to me what <any> is .',
    'i have never heard of <any> .',
)
_TELLING_QUESTIONS = {
    'animal': ('what does a <animal> eat ?', 'why does the <animal> growl ?'),
    'food': ('how do you cook a <food> ?', 'what does <food> taste of ?'),
    'tool': ('what do you cut with a <tool> ?',
             'how is a <tool> sharpened ?'),
    'place': ('how many people live in <place> ?', 'who is mayor of <place> ?'),
    'garment': ('who wears a <garment> ?', 'how do you wash a <garment> ?'),
    'illness': ('which pills help against <illness> ?',
                'who suffers from <illness> ?'),
}
_TELLING_RATE = 0.3  # Of the questions.
_NEUTRAL_RATE = 0.15  # Of the sentences.

# With so many pieces nearly every noun is one piece.
_VOCABULARY_SIZE = 924


@functools.lru_cache(maxsize=None)
def nouns(seed=0):
  """Invents the nouns.

  Args:
    seed: an integer.

  Returns:
    A dict from each class to a tuple of its nouns, the ones that labelled
    training questions may have first.
  """
  rng = random.Random(seed)
  onsets = 'b d f g k l m n p r s t v z br dr gr kl pl st tr'.split()
  invented = {}  # A set that keeps the order.
  while len(invented) < NOUNS_PER_CLASS * len(CLASSES):
    noun = ''.join(rng.choice(onsets) + rng.choice('aeiou') for _ in range(2))
    invented[noun + rng.choice(['', '', 'n', 'l', 'k', 'r'])] = True
  invented = list(invented)
  return {name: tuple(invented[i::len(CLASSES)])
          for i, name in enumerate(CLASSES)}


def _fill(template, rng, pick_noun):
  """Puts words into a template; pick_noun returns one for each <class>."""
  words = []
  for word in template.split():
    if word.startswith('<'):
      word = pick_noun()
    elif word.startswith('['):
      word = rng.choice(_WORDS[word[1:-1]])
    words.append(word)
  return ' '.join(words)


@functools.lru_cache(maxsize=None)
def unlabelled(seed=0):
  """Writes the unlabelled text.

  Args:
    seed: an integer.

  Returns:
    A list of documents, each of a few sentences about nouns of one class.
  """
  rng = random.Random(seed + 1)
  documents = []
  for _ in range(NUM_DOCUMENTS):
    topic = rng.choice(CLASSES)
    pick_noun = functools.partial(rng.choice, nouns(seed)[topic])
    sentences = []
    for _ in range(SENTENCES_PER_DOCUMENT):
      templates = (_NEUTRAL_SENTENCES if rng.random() < _NEUTRAL_RATE
                   else _SENTENCES[topic])
      sentences.append(_fill(rng.choice(templates), rng, pick_noun))
    documents.append(' '.join(sentences))
  return documents


@functools.lru_cache(maxsize=None)
def labelled(split, seed=0):
  """Writes labelled questions; no noun is in questions of both splits.

  Args:
    split: 'train' or 'validation'.
    seed: an integer.

  Returns:
    A list of (question, class).
  """
  rng = random.Random(f'{seed} {split}')
  questions = []
  for i in range(NUM_LABELLED[split]):
    name = CLASSES[i % len(CLASSES)]
    own = (slice(LABELLED_NOUNS_PER_CLASS) if split == 'train'
           else slice(LABELLED_NOUNS_PER_CLASS, None))
    noun = rng.choice(nouns(seed)[name][own])
    templates = (_TELLING_QUESTIONS[name] if rng.random() < _TELLING_RATE
                 else _NEUTRAL_QUESTIONS)
    questions.append(
        (_fill(rng.choice(templates), rng, lambda noun=noun: noun), name))
  return questions


def _text():
  """Returns what the SentencePiece model is trained on, a list of lines."""
  return unlabelled() + [' '.join(pair) for pair in labelled('train')]


@functools.lru_cache(maxsize=None)
def _key():
  """Returns a name of the SentencePiece model, made from its text.

  Its path is asked for several times in each row that is decoded.
  """
  return hashlib.sha256('\n'.join(
      [str(_VOCABULARY_SIZE), *_text()]).encode()).hexdigest()[:16]


def model_path():
  """Returns the path of the corpus's SentencePiece model.

  It is trained when it is first asked for, which takes a second, and kept in
  the user's cache folder under a name made from the text.
  """
  path = os.path.join(os.path.dirname(vocabulary.cache_path()),
                      f'corpus.{_key()}.sentencepiece.model')
  if not os.path.exists(path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_text()), model_writer=model,
        vocab_size=_VOCABULARY_SIZE, model_type='bpe', pad_id=0, eos_id=1,
        unk_id=2, bos_id=-1, character_coverage=1.0, num_threads=1,
        normalization_rule_name='identity', minloglevel=2)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    files.write_whole(path, model.getvalue())
  return path
