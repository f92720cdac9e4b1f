"""Whether rows that models are scored on lie in the text of pre-training.

A row counts as found when 13 words in a row of any of its texts, or all of a
text of 8 to 12 words, are somewhere in the pre-training text; words are
compared in lower case and without punctuation. Shorter texts tell nothing: a
quarter of IMDb's test reviews share 8 words in a row with the unlabelled ones,
phrases such as 'some of the worst I have ever seen'.
"""

import itertools
import json
import os
import re

import seqio
import tensorflow.compat.v1 as tf
import tensorflow_datasets as tfds
import tqdm

from mtf_conv.base import autograph, errors, files, terminal
from mtf_conv.prepare import train_vocabulary
from mtf_conv.tasks import labels

WORDS = 13
_FEWEST = 8
_ROWS = 10_000  # Of a split, the first ones.
_EXAMPLES = 5
_TOO_MANY = 0.5  # The share of rows with which a text is no text to train on.


def path(data_dir=None):
  """Returns the path of the file that `measure` writes.

  Args:
    data_dir: TFDS's data folder; TFDS's default when None.
  """
  folder = os.path.expanduser(data_dir or files.tfds_data_dir())
  return os.path.join(folder, 'mtf_conv', 'overlap.json')


def read(data_dir):
  """Returns what `measure` wrote, or None."""
  try:
    with open(path(data_dir)) as f:
      return json.load(f)
  except FileNotFoundError:
    return None


def measure(corpus, tasks, data_dir=None):
  """Looks for the rows of tasks in a text; prints and writes what is found.

  Args:
    corpus: the name of a task that pre-trains on text.
    tasks: names of tasks, whose rows that are not trained on are looked for.
    data_dir: TFDS's data folder, in which all is prepared; TFDS's default when
      None.

  Raises:
    errors.UserError: a task has no text or is not prepared; or half of a split
      lies in the text.
  """
  if data_dir:
    seqio.set_tfds_data_dir_override(os.path.abspath(data_dir))
  documents = train_vocabulary.documents_of_task(corpus)
  names = [(task, split) for task in tasks
           for split in seqio.TaskRegistry.get(task).splits
           if split not in ('train', labels.DEV)]
  splits = [
      {'task': task, 'split': split, **found} for (task, split), found
      in zip(names, _find([_rows(*name) for name in names], documents()))]
  os.makedirs(os.path.dirname(path(data_dir)), exist_ok=True)
  files.write_whole(path(data_dir), json.dumps(
      {'corpus': corpus, 'words': WORDS, 'splits': splits}, indent=1))
  for found in splits:
    print(describe(corpus, found))
  worst = max(splits, key=_share, default=None)
  if worst and _share(worst) >= _TOO_MANY:
    raise errors.UserError(
        f'{describe(corpus, worst)} a model that has read them is no measure: '
        'pre-train on another text')


def describe(corpus, found):
  """Returns a sentence on one of the splits that `measure` writes."""
  return (f'{found["task"]} {found["split"]}: {found["found"]} of '
          f'{found["rows"]} rows have {WORDS} words in a row that are in the '
          f'text of {corpus} ({100 * _share(found):.1f}%).')


def _share(found):
  return found['found'] / max(1, found['rows'])


def _rows(task, split):
  """Yields the texts of each row, as they are before preprocessing."""
  source = seqio.TaskRegistry.get(task).source
  with tf.Graph().as_default():
    dataset = autograph.avoid(
        lambda: source.get_dataset(split, shuffle=False))
    for row in itertools.islice(tfds.as_numpy(dataset), _ROWS):
      yield [value.decode('utf-8', 'replace') for value in row.values()
             if isinstance(value, bytes)]


def _words(text):
  return re.findall(r'\w+', text.lower())


def _find(splits, documents):
  """Counts the rows that are in documents.

  Args:
    splits: a list of iterables of rows, each a list of texts.
    documents: an iterable of strings.

  Returns:
    A list of dicts: 'rows', 'found', and some 'examples' of what was found.
  """
  # From the first words of what is looked for to what follows, and the row.
  wanted, counts = {}, []
  for split, rows in enumerate(splits):
    counts.append(0)
    for texts in rows:
      counts[split] += 1
      for words in map(_words, texts):
        size = min(WORDS, len(words))
        for start in range(len(words) - size + 1) if size >= _FEWEST else ():
          wanted.setdefault(tuple(words[start:start + _FEWEST]), []).append(
              (words[start + _FEWEST:start + size], split, counts[split]))
  found = [{} for _ in counts]
  for document in tqdm.tqdm(
      documents, desc='reading', unit='document', mininterval=1,
      disable=not terminal.shows_progress()):
    words = _words(document)
    for start in range(len(words) - _FEWEST + 1):
      end = start + _FEWEST
      for rest, split, row in wanted.get(tuple(words[start:end]), ()):
        if words[end:end + len(rest)] == rest:
          found[split].setdefault(row, ' '.join(words[start:end + len(rest)]))
  return [{'rows': count, 'found': len(rows),
           'examples': list(rows.values())[:_EXAMPLES]}
          for count, rows in zip(counts, found)]
