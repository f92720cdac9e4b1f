"""Records of text, TSV and JSONL: read line by line, written with answers."""

import json
import os
import re
from typing import NamedTuple

from mtf_conv.base import errors, lines

FORMATS = ('text', 'tsv', 'jsonl')
_BY_SUFFIX = {'.tsv': 'tsv', '.jsonl': 'jsonl', '.json': 'jsonl'}


def form(path, given=None) -> str:
  """Returns the format of a file: what is given, else what its name ends in."""
  suffix = os.path.splitext(path.removesuffix('.gz'))[1]
  return given or _BY_SUFFIX.get(suffix, 'text')


class Record(NamedTuple):
  """A line of input.

  Attributes:
    number: of the line, from 1.
    place: what an error about it begins with, 'FILE:3'.
    line: the line.
    row: of TSV its columns, a list; of JSONL its fields, a dictionary; else
      None.
    texts: what the model is given: the inputs, or the inputs and the targets.
    is_blank: whether nothing stands there.
  """

  number: int
  place: str
  line: str
  row: object
  texts: tuple[str, ...]
  is_blank: bool


def read(path, form, fields):
  """Reads a file.

  Args:
    path: the file; '-' for standard input.
    form: one of FORMATS.
    fields: the names of what is read: of JSONL its fields, of TSV its first
      columns.

  Yields:
    A Record for each line. A blank line is one, too: a record without texts.

  Raises:
    errors.UserError: names the line that cannot be used.
  """
  for number, line in lines.read(path):
    place = f'{path}:{number}'
    if not line.strip():
      yield Record(number, place, line, None, ('',) * len(fields), True)
      continue
    row = None
    if form == 'tsv':
      row = line.split('\t')
      if len(row) < len(fields):
        raise errors.UserError(
            f'{place}: expected {len(fields)} columns parted by tabs '
            f'({", ".join(fields)}), found {len(row)}')
      texts = row[:len(fields)]
    elif form == 'jsonl':
      row = lines.json_object(line, fields, place)
      texts = [row[name] for name in fields]
    else:
      texts = [line]
    try:
      ''.join(texts).encode()
    except UnicodeEncodeError as error:
      raise errors.UserError(
          f'{place}: half of a surrogate pair, {error.object[error.start]!r}, '
          'is no character') from error
    yield Record(number, place, line, row, tuple(texts), False)


def read_pairs(inputs_path, targets_path, fields):
  """Reads two files of text, line by line: inputs and their targets.

  Args:
    inputs_path: of the inputs; '-' for standard input.
    targets_path: of the targets.
    fields: the names of both.

  Yields:
    Records.

  Raises:
    errors.UserError: one of them has more lines.
  """
  targets = read(targets_path, 'text', fields[1:])
  number = 0
  for number, record in enumerate(read(inputs_path, 'text', fields[:1]), 1):
    target = next(targets, None)
    if target is None:
      raise errors.UserError(
          f'{targets_path} has {number - 1} lines, and {inputs_path} has more')
    yield record._replace(line=f'{record.line}\t{target.line}', is_blank=False,
                          texts=record.texts + target.texts)
  if next(targets, None) is not None:
    raise errors.UserError(
        f'{inputs_path} has {number} lines, and {targets_path} has more')


def write(form, fields, record, answer) -> bytes:
  """Returns the line of an answer.

  Args:
    form: one of FORMATS.
    fields: the names of the record's texts.
    record: a Record.
    answer: a dictionary, its first value the only one that is written to text.
      TSV has one column for each value, or for each of a list or dictionary.
  """
  if form == 'jsonl':
    row = record.row if isinstance(record.row, dict) else dict(
        zip(fields, record.texts))
    line = json.dumps({**row, **answer}, ensure_ascii=False)
  elif form == 'tsv':
    row = record.row if isinstance(record.row, list) else record.texts
    values = [each for value in answer.values() for each in _flat(value)]
    line = '\t'.join(map(_one_line, [*row, *values]))
  else:
    line = _one_line(next(iter(answer.values())))
  return f'{line}\n'.encode()


def _flat(value):
  if isinstance(value, dict):
    return list(value.values())
  return value if isinstance(value, list) else [value]


def _one_line(value):
  """Returns a value as text without ends of lines and tabs."""
  if isinstance(value, float):
    return f'{value:.6g}'
  return re.sub(r'[\r\n\t]+', ' ', '' if value is None else str(value))
