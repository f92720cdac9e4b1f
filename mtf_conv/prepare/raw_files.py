"""The raw files of the datasets, as those who publish them write them.

Everything that a TFDS builder would take for granted is checked here line by
line, so that what is wrong with a file is told with its name and line.
"""

import codecs
import collections
import contextlib
import csv
import dataclasses
import fnmatch
import glob
import gzip
import io
import itertools
import json
import lzma
import os
import tarfile
import zipfile
import zlib
from typing import Callable, Optional

from mtf_conv.base import errors
from mtf_conv.tasks import classification

# What the libraries raise when an archive ends early, is none, or is encrypted.
_BROKEN_ARCHIVE = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile,
                   EOFError, zlib.error, lzma.LZMAError, RuntimeError)


class RawFile:
  """A raw file while it is read, and the file that the builder reads instead.

  Attributes:
    path: its name in error messages.
    line: the number of the line that was read last.
  """

  def __init__(self, path, source, target):
    """Constructor.

    Args:
      path: its name in error messages.
      source: a binary file to read.
      target: a binary file to write.
    """
    self.path = path
    self.line = 0
    self._source = source
    self._target = target

  def __iter__(self):
    """Yields the lines as bytes, for the caller to write on.

    The mark with which some editors begin UTF-8 is left out: the builders would
    take it for text.
    """
    for line in self._source:
      self.line += 1
      yield line if self.line > 1 else line.removeprefix(codecs.BOM_UTF8)

  def write(self, content):
    """Writes bytes for the builder."""
    self._target.write(content)

  def lines(self, encoding='utf-8'):
    """Yields the lines as text and hands them to the builder as they are."""
    for line in self:
      self.write(line)
      try:
        text = line.decode(encoding)
      except UnicodeDecodeError as error:
        self.fail(f'expected UTF-8, found byte 0x{line[error.start]:02x} at '
                  f'column {error.start + 1}')
      # The builders open it with universal newlines.
      yield from io.StringIO(text, newline=None)

  def fail(self, problem, line=None):
    """Raises UserError with the file and the line."""
    raise errors.UserError(f'{self.path}:{line or self.line}: {problem}')


# Checks of one value in a table.


def _text(value):
  _not_empty(value)
  if not value.strip():
    raise ValueError('expected text, found none')


def _not_empty(value):
  if not isinstance(value, str):
    raise ValueError(f'expected text, found {value!r}')
  if not value:
    raise ValueError('expected text, found none')


def _anything(value):
  del value


def _one_of(*choices):
  def check(value):
    if value not in choices:
      expected = '' if len(choices) > 5 else (
          f': expected one of {", ".join(choices)}')
      raise ValueError(
          f'unknown label {value!r}{expected}{errors.nearest(value, choices)}')
  return check


def _number(value):
  try:
    float(value or 0)
  except ValueError as error:
    raise ValueError(f'expected a number, found {value!r}') from error


def _share(value):
  _number(value)
  if not 0 <= float(value or 0) <= 1:
    raise ValueError(f'expected a number from 0 to 1, found {value}')


# Follows the last line of a table, and is in no text: a row of its own, unless
# the file ends within a quoted value, which csv.reader would take for whole.
_END = '\uffff'
_OPEN_QUOTE = 'the file ends within a quoted value'


def _table_rows(raw, columns, header=True, encoding='utf-8', **dialect):
  """Yields the checked rows of a table.

  Args:
    raw: a RawFile.
    columns: from the names of columns to checks, functions of a value that
      raise ValueError. There may be other columns if there is a header.
    header: whether the first line names the columns.
    encoding: of the file.
    **dialect: for csv.reader.

  Yields:
    Dictionaries from all columns to values.
  """
  reader = csv.reader(itertools.chain(raw.lines(encoding), [_END]), **dialect)
  names, end = list(columns), 0
  try:
    if header:
      names = [name.rstrip(_END) for name in next(reader)]
      end = reader.line_num
      missing = [name for name in columns if name not in names]
      if missing:
        raw.fail(f'expected a header with {", ".join(columns)}, found '
                 f'{", ".join(names) or "none"}', line=1)
    for row in reader:
      if row == [_END]:
        return
      first, end = end + 1, reader.line_num  # Values may hold line ends.
      if row and row[-1].endswith(_END):
        raw.fail(_OPEN_QUOTE, line=first)
      if len(row) != len(names):
        raw.fail(f'expected {len(names)} columns ({", ".join(names)}), found '
                 f'{len(row)}', line=first)
      row = dict(zip(names, row))
      for name, check in columns.items():
        try:
          check(row[name])
        except ValueError as error:
          raw.fail(f'{name}: {error}', line=first)
      yield row
  except csv.Error as error:
    # In a strict dialect; in others the row is yielded with _END.
    ends = str(error) == 'unexpected end of data'
    raw.fail(_OPEN_QUOTE if ends else f'not a row of a table: {error}',
             line=end + 1)


def _table(columns, **kwargs):
  """Returns a reader of tables; see _table_rows."""
  def read(raw):
    return sum(1 for _ in _table_rows(raw, columns, **kwargs))
  return read


def _tsv(**columns):
  """Returns a reader of GLUE's tables, in which quotes mean nothing."""
  return _table(columns, delimiter='\t', quoting=csv.QUOTE_NONE)


# What a row of COGS is there for: training and scores in distribution, the
# primitives and the other examples by which the generalisation set's words are
# known, and the generalisation set's 21 types.
_COGS_TYPES = (
    'in_distribution', 'primitive', *(f'exposure_example_{kind}' for kind in (
        'active', 'do_dative', 'obj_common', 'obj_omitted_transitive',
        'obj_proper', 'passive', 'pp_dative', 'subj_common', 'subj_proper',
        'transitive_subj', 'unacc', 'unacc_subj')),
    'active_to_passive', 'cp_recursion', 'do_dative_to_pp_dative',
    'obj_omitted_transitive_to_transitive', 'obj_pp_to_subj_pp',
    'obj_to_subj_common', 'obj_to_subj_proper',
    'only_seen_as_transitive_subj_as_unacc_subj',
    'only_seen_as_unacc_subj_as_obj_omitted_transitive_subj',
    'only_seen_as_unacc_subj_as_unerg_subj', 'passive_to_active',
    'pp_dative_to_do_dative', 'pp_recursion', 'prim_to_inf_arg',
    'prim_to_obj_common', 'prim_to_obj_proper', 'prim_to_subj_common',
    'prim_to_subj_proper', 'subj_to_obj_common', 'subj_to_obj_proper',
    'unacc_to_transitive')

_TREC_COARSE = ('DESC', 'ENTY', 'ABBR', 'HUM', 'NUM', 'LOC')


def _read_trec(raw):
  """Reads lines such as b'LOC:city What is the capital of Peru ?'."""
  for line in raw:
    # The builder itself makes the one 0xf0 of the original a space, and takes
    # the rest for UTF-8. Other files in Latin-1 are translated.
    try:
      text = line.replace(b'\xf0', b' ').decode()
    except UnicodeDecodeError:
      text = line.decode('latin-1')
      line = text.encode()
    label, _, question = text.strip().partition(' ')
    coarse, colon, fine = label.partition(':')
    if not colon:
      raw.fail(f"expected 'COARSE:fine question', found {label!r}")
    for kind, name, names in (
        ('label-coarse', coarse, _TREC_COARSE),
        ('label-fine', fine, classification.DATASETS['trec'].labels)):
      if name not in names:
        raw.fail(f'unknown {kind} {name!r}{errors.nearest(name, names)}')
    if not question.strip():
      raw.fail(f'no question after {label!r}')
    raw.write(line)
  return raw.line


def _read_review(raw):
  """Reads a file that is one text."""
  if not ''.join(raw.lines()).strip():
    raise errors.UserError(f'{raw.path} holds no text')
  return 1


def _read_squad(raw):
  """Reads SQuAD's JSON; returns the number of questions."""
  content = ''.join(raw.lines())
  try:
    articles = json.loads(content)['data']
  except json.JSONDecodeError as error:
    raw.fail(f'not JSON at column {error.colno}: '
             + error.msg.replace(' starting at', ''), line=error.lineno)
  except (KeyError, TypeError):
    raw.fail("expected an object with the field 'data'", line=1)
  rows, where = 0, ''
  try:
    for i, article in enumerate(articles):
      for j, paragraph in enumerate(article['paragraphs']):
        where = f'data[{i}].paragraphs[{j}]'
        _text(paragraph['context'])
        for k, question in enumerate(paragraph['qas']):
          where = f'data[{i}].paragraphs[{j}].qas[{k}]'
          _text(question['id'])
          _not_empty(question['question'])
          if not question['answers']:
            raise ValueError('expected an answer, found none')
          for answer in question['answers']:
            _text(answer['text'])
            int(answer['answer_start'])
          rows += 1
  except KeyError as error:
    raise errors.UserError(f'{raw.path}: {where} has no {error}') from error
  except (TypeError, ValueError) as error:
    raise errors.UserError(f'{raw.path}: {where}: {error}') from error
  return rows


_TOXIC_LABELS = ('toxic', 'severe_toxic', 'obscene', 'threat', 'insult',
                 'identity_hate')
_KAGGLE = ('train.csv', 'test.csv', 'test_labels.csv')


def _from_kaggle(folder, out):
  """Writes the competition's files of wiki_toxicity as the builder's.

  Args:
    folder: where train.csv, test.csv and test_labels.csv are.
    out: a folder for wikidata_train.csv and wikidata_test.csv.

  Returns:
    A dictionary from the three files to their rows.
  """
  counts = collections.Counter()

  def rows(name, columns):
    path = os.path.join(folder, name)
    with open(path, 'rb') as source, open(os.devnull, 'wb') as nowhere:
      raw = RawFile(path, source, nowhere)
      for row in _table_rows(raw, columns):
        counts[name] += 1
        yield raw, row

  def write(name, rows):
    with open(os.path.join(out, name), 'w', newline='') as f:
      writer = csv.writer(f)
      writer.writerow(['id', 'comment_text', *_TOXIC_LABELS, 'lang'])
      for row, labels in rows:
        writer.writerow([row['id'], row['comment_text'],
                         *(labels[name] for name in _TOXIC_LABELS), 'en'])

  text = {'id': _text, 'comment_text': _not_empty}
  binary = dict.fromkeys(_TOXIC_LABELS, _one_of('0', '1'))
  write('wikidata_train.csv', (
      (row, row) for _, row in rows('train.csv', {**text, **binary})))
  # -1 marks the rows that the competition did not score.
  scored = dict.fromkeys(_TOXIC_LABELS, _one_of('0', '1', '-1'))
  labels = {row['id']: row for _, row in rows(
      'test_labels.csv', {'id': _text, **scored})}

  def test_rows():
    for raw, row in rows('test.csv', text):
      if row['id'] not in labels:
        raw.fail(f'{row["id"]} is not in test_labels.csv')
      if labels[row['id']]['toxic'] != '-1':
        yield row, labels[row['id']]

  write('wikidata_test.csv', test_rows())
  return counts


@dataclasses.dataclass(frozen=True)
class Source:
  """What one URL of a builder serves.

  Attributes:
    name: the name of the file: an archive, or the only one of `files`.
    files: from the names of the files in it, or patterns of them, to functions
      that read a RawFile and return the number of its rows.
    parts: a pattern of archives that may stand for it together.
    foreign: names of files that may stand for `files`, in another format.
    translate: a function of their folder and of one to write `files` into that
      returns a dictionary from them to their rows.
  """

  name: str
  files: dict
  parts: Optional[str] = None
  foreign: tuple = ()
  translate: Optional[Callable] = None

  @property
  def is_archive(self):
    """Whether the builder is served an archive."""
    return self.name not in self.files


@dataclasses.dataclass(frozen=True)
class Dataset:
  """The raw files of a task.

  Attributes:
    sources: what the URLs of its builder serve.
    rows: how many rows the builder makes of the originals, by split.
  """

  sources: tuple
  rows: dict


_SST2 = _tsv(sentence=_text, label=_one_of('0', '1'))
# Of the originals that were not at hand it is not known whether a tweet, say,
# is blank: only what is empty is refused. Comments of civil_comments and
# sentences of MNLI may be empty, too.
_MNLI = _tsv(
    sentence1=_anything, sentence2=_anything,
    gold_label=_one_of('entailment', 'neutral', 'contradiction'))
_MNLI_TEST = _tsv(sentence1=_anything, sentence2=_anything)
_NEWS = _table({'label': _one_of('1', '2', '3', '4'), 'title': _anything,
                'description': _not_empty}, header=False, strict=True)
_TWEETS = _table(
    {'polarity': _one_of('0', '2', '4'), 'id': _anything, 'date': _anything,
     'query': _anything, 'user': _anything, 'text': _not_empty},
    header=False, encoding='latin-1')
_WIKI = _table({
    'id': _text, 'comment_text': _not_empty, 'lang': _anything,
    **dict.fromkeys(_TOXIC_LABELS, _share)}, strict=True)
_CIVIL = _table({
    'id': _text, 'comment_text': _anything, 'split': _anything,
    'toxicity': _share, 'severe_toxicity': _share, 'obscene': _share,
    'threat': _share, 'insult': _share, 'identity_attack': _share,
    'sexual_explicit': _share, 'parent_id': _number, 'article_id': _number,
    'parent_text': _anything, 'publication_id': _anything,
    'created_date': _anything}, strict=True)
_COGS = _table({'sentence': _text, 'logical form': _text,
                'type': _one_of(*_COGS_TYPES)},
               header=False, delimiter='\t', quoting=csv.QUOTE_NONE)
_COGS_DATASET = Dataset(
    tuple(Source(f'{split}.tsv', {f'{split}.tsv': _COGS})
          for split in ('train', 'dev', 'test', 'gen')),
    {'train': 24155, 'dev': 3000, 'test': 3000, 'gen': 21000})

DATASETS = {
    'civil_comments': Dataset(
        (Source('civil_comments_v1.2.zip', {'civil_comments.csv': _CIVIL}),),
        {'train': 1804874, 'validation': 97320, 'test': 97320}),
    'wiki_toxicity': Dataset(
        (Source('wikipedia_toxicity_subtypes_v0.3.zip',
                {'wikidata_train.csv': _WIKI, 'wikidata_test.csv': _WIKI},
                foreign=_KAGGLE, translate=_from_kaggle),),
        {'train': 159571, 'test': 63978}),
    'imdb': Dataset(
        (Source('aclImdb_v1.tar.gz',
                {f'aclImdb/{folder}/*.txt': _read_review for folder in (
                    'train/neg', 'train/pos', 'train/unsup', 'test/neg',
                    'test/pos')},
                parts='aclImdb_*.tar.xz'),),
        {'train': 25000, 'test': 25000, 'unsupervised': 50000}),
    'sst2': Dataset(
        (Source('SST-2.zip', {
            'SST-2/train.tsv': _SST2, 'SST-2/dev.tsv': _SST2,
            'SST-2/test.tsv': _tsv(sentence=_text)}),),
        {'train': 67349, 'validation': 872, 'test': 1821}),
    'sentiment140': Dataset(
        (Source('trainingandtestdata.zip', {
            'training.1600000.processed.noemoticon.csv': _TWEETS,
            'testdata.manual.2009.06.14.csv': _TWEETS}),),
        {'train': 1600000, 'test': 498}),
    'trec': Dataset(
        tuple(Source(name, {name: _read_trec})
              for name in ('train_5500.label', 'TREC_10.label')),
        {'train': 5452, 'test': 500}),
    'ag_news': Dataset(
        (Source('ag_news_csv.tar.gz', {
            'ag_news_csv/train.csv': _NEWS, 'ag_news_csv/test.csv': _NEWS}),),
        {'train': 120000, 'test': 7600}),
    'mnli': Dataset(
        (Source('MNLI.zip', {
            'MNLI/train.tsv': _MNLI,
            'MNLI/dev_matched.tsv': _MNLI, 'MNLI/dev_mismatched.tsv': _MNLI,
            'MNLI/test_matched.tsv': _MNLI_TEST,
            'MNLI/test_mismatched.tsv': _MNLI_TEST}),),
        {'train': 392702, 'validation_matched': 9815,
         'validation_mismatched': 9832, 'test_matched': 9796,
         'test_mismatched': 9847}),
    'squad': Dataset(
        tuple(Source(name, {name: _read_squad})
              for name in ('train-v1.1.json', 'dev-v1.1.json')),
        {'train': 87599, 'validation': 10570}),
    'cogs': _COGS_DATASET,
    'cogs_gen': _COGS_DATASET,
}


def _archives(source, folder):
  """Returns the archives in a folder that hold the files of a source."""
  whole = os.path.join(folder, source.name)
  if os.path.isfile(whole):
    return [whole]
  parts = source.parts and os.path.join(glob.escape(folder), source.parts)
  return sorted(glob.glob(parts)) if parts else []


def _archive_members(path):
  """Yields (name, binary file) of an archive, in its order."""
  if path.endswith('.zip'):
    with zipfile.ZipFile(path) as archive:
      for info in archive.infolist():
        if not info.is_dir():
          with archive.open(info) as f:
            yield info.filename, f
  else:
    with tarfile.open(path) as archive:
      for info in archive:
        if info.isfile():
          yield info.name, archive.extractfile(info)
      # A damaged header ends a tar as its end does; the checksum of what it is
      # compressed with is at the very end.
      while archive.fileobj.read(1 << 20):
        pass


def _found(source, folder):
  """Finds the files of a source, in archives or as they are.

  Args:
    source: a Source.
    folder: where to look.

  Yields:
    (pattern of the file in `source.files`, its name there, its path to be told,
    the archive or else the pattern, the opened file).
  """
  archives = _archives(source, folder) if source.is_archive else []
  for archive in archives:
    for name, f in _archive_members(archive):
      name = os.path.normpath(name)
      for pattern in source.files:
        if fnmatch.fnmatchcase(name, pattern):
          yield (pattern, name, f'{archive}/{name}',
                 os.path.basename(archive), f)
  for pattern in () if archives else source.files:
    for path in matching(folder, pattern):
      with open(path, 'rb') as f:
        yield pattern, os.path.relpath(path, folder), path, pattern, f


def matching(folder, pattern):
  """Returns the sorted paths of a folder's files that match a pattern."""
  return sorted(glob.glob(os.path.join(glob.escape(folder), pattern)))


def stage(source, folder, target, scratch):
  """Checks the raw files of a source and writes what its URL would serve.

  Args:
    source: a Source.
    folder: where its files or its archive are.
    target: the file to write, a .zip for any archive.
    scratch: a folder to be made for what is needed meanwhile.

  Returns:
    A dictionary from the files or archives, or patterns of them, to their rows.

  Raises:
    errors.UserError: a file that is missing or malformed, with the line.
  """
  counts, translated, seen = collections.Counter(), None, set()
  if not _archives(source, folder) and source.foreign and all(
      os.path.isfile(os.path.join(folder, name)) for name in source.foreign):
    os.mkdir(scratch)
    translated, folder = source.translate(folder, scratch), scratch
  archives = ', '.join(_archives(source, folder))
  try:
    with contextlib.ExitStack() as stack:
      if source.is_archive:
        archive = stack.enter_context(zipfile.ZipFile(target, 'w'))
      for pattern, name, path, given, f in _found(source, folder):
        with (archive.open(name, 'w', force_zip64=True) if source.is_archive
              else open(target, 'wb')) as out:
          rows = source.files[pattern](RawFile(path, f, out))
        if not rows:
          raise errors.UserError(f'{path} is empty')
        counts[given] += rows
        seen.add(pattern)
  except _BROKEN_ARCHIVE as error:
    problem = str(error).partition(':\n')[0]  # A list of all that was tried.
    raise errors.UserError(
        f'{archives} is not a whole archive: {problem}') from error
  for pattern in source.files:
    if pattern in seen:
      continue
    if archives:
      raise errors.UserError(f'{archives} holds no {pattern}')
    also = f', or {source.name}' if source.is_archive else ''
    raise errors.UserError(
        f'{os.path.join(folder, pattern)} does not exist: --raw_dir names the '
        f'folder that holds {pattern}{also}')
  return translated or counts
