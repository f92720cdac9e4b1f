"""Documents of local text files.

What a document is depends on the file's name:

* `.txt`: what stands between blank lines, so that both one file per document
  and many documents in a file are read as meant. A longer one than
  MAX_CHARACTERS goes on as the next document, because T5's span corruption
  keeps only one chunk of 65,536 tokens of each.
* `.tokens`: WikiText's articles, each of which starts at ` = Title = `.
* `.jsonl`, `.json`: one JSON object a line, its text in the field `text`, as
  C4 is distributed.

Each may be compressed (`.gz`). The text must be UTF-8.
"""

import glob
import os
import re

from mtf_conv.base import errors, lines

MAX_CHARACTERS = 65536
_ARTICLE = re.compile(r'\s*= [^=].* =\s*$')
_VARIABLES = {
    'train': 'MTF_CONV_TEXT', 'validation': 'MTF_CONV_TEXT_VALIDATION'}


def _documents(path, starts, ends):
  """Yields documents of whole lines from a text file.

  Args:
    path: the file.
    starts: whether a line is the first of a document.
    ends: whether a line parts two documents.

  Yields:
    Strings of about MAX_CHARACTERS at most: lines are never cut.
  """
  document, characters = [], 0
  for _, line in lines.read(path):
    if (starts(line) or ends(line)
        or characters + len(line) > MAX_CHARACTERS):
      yield '\n'.join(document)
      document, characters = [], 0
    if not ends(line):
      document.append(line)
      characters += len(line) + 1
  yield '\n'.join(document)


def _read_txt(path):
  return _documents(
      path, starts=lambda line: False, ends=lambda line: not line.strip())


def _read_tokens(path):
  return _documents(path, starts=_ARTICLE.match, ends=lambda line: False)


def _read_jsonl(path):
  """Yields the field `text` of each line."""
  for number, line in lines.read(path):
    if not line.strip():
      continue
    yield lines.json_object(line, ['text'], f'{path}:{number}')['text']


_READERS = {'.txt': _read_txt, '.tokens': _read_tokens,
            '.jsonl': _read_jsonl, '.json': _read_jsonl}


def _reader(path):
  """Returns the function that reads a file's documents, by its name."""
  suffix = os.path.splitext(path[:-3] if path.endswith('.gz') else path)[1]
  if suffix not in _READERS:
    raise errors.UserError(
        f'{path}: the name of a text file ends in one of {", ".join(_READERS)} '
        '(or these and .gz)')
  return _READERS[suffix]


def read_documents(path):
  """Yields the documents of one file that hold more than white space.

  Args:
    path: the file; its name says how it is read.

  Yields:
    Strings.

  Raises:
    errors.UserError: the file, the line and what is wrong with it.
  """
  for document in _reader(path)(path):
    if document.strip():
      yield document.strip()


def expand(patterns):
  """Returns the sorted files that a list of globs names.

  Args:
    patterns: a list of globs, or a string of them parted by commas.

  Raises:
    errors.UserError: a glob matches nothing, or something that is no text file.
  """
  if isinstance(patterns, str):
    patterns = patterns.split(',')
  paths = set()
  for pattern in patterns:
    pattern = os.path.expanduser(pattern.strip())
    found = glob.glob(pattern, recursive=True)
    if not found:
      raise errors.UserError(f'no text file matches {pattern!r}')
    paths.update(found)
  for path in paths:
    if os.path.isdir(path):
      raise errors.UserError(
          f'{path} is a folder: name its files, as in {path.rstrip("/")}/*.txt')
    _reader(path)
  return sorted(paths)


def split_files(split, patterns=None):
  """Returns the files of one split of `text_span_corruption`.

  Args:
    split: 'train' or 'validation'.
    patterns: globs, as in `expand`; without them those of the environment
      variable MTF_CONV_TEXT (MTF_CONV_TEXT_VALIDATION).

  Raises:
    errors.UserError: no file is named, or a glob matches none.
  """
  patterns = patterns or os.environ.get(_VARIABLES[split])
  if not patterns:
    raise errors.UserError(
        f'text_span_corruption has no {split} text: set {_VARIABLES[split]} to '
        'a comma-separated list of globs, or bind '
        f'mtf_conv.tasks.text_files.{split} to a list of them')
  return expand(patterns)
