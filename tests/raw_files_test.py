"""Tests of the formats of raw files: what is read, and what is told if not."""

import csv
import io
import os
import re
import tarfile
import zipfile

import pytest
import raw_data

from mtf_conv.base import errors
from mtf_conv.prepare import raw_files


@pytest.fixture
def raw(tmp_path):
  folder = tmp_path / 'raw'
  folder.mkdir()
  return folder


def _stage(task, folder, tmp_path):
  """Returns the rows of each given file, and the files the builder gets."""
  counts, served = {}, {}
  for i, source in enumerate(raw_files.DATASETS[task].sources):
    target = tmp_path / f'target{i}'
    counts.update(raw_files.stage(
        source, str(folder), str(target), str(tmp_path / f'scratch{i}')))
    if source.is_archive:
      with zipfile.ZipFile(target) as archive:
        served.update({name: archive.read(name) for name in archive.namelist()})
    else:
      served[source.name] = target.read_bytes()
  return counts, served


def _files(folder):
  return {path.relative_to(folder).as_posix(): path.read_bytes()
          for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize('task, rows', [
    ('civil_comments', [6]), ('wiki_toxicity', [2, 1]),
    ('imdb', [1, 1, 1, 1, 1]), ('sst2', [2, 1, 1]), ('sentiment140', [2, 3]),
    ('ag_news', [2, 1]), ('mnli', [1, 1, 1, 1, 1]), ('squad', [1, 1]),
    ('cogs', [2, 1, 1, 2]),
])
def test_files_reach_the_builder_as_they_are(task, rows, raw, tmp_path):
  raw_data.WRITERS[task](raw)
  counts, served = _stage(task, raw, tmp_path)
  expected = _files(raw)
  expected.pop('aclImdb/README', None)
  assert served == expected
  assert list(counts.values()) == rows


def _zip(path, files):
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    for name, content in files.items():
      archive.writestr(name, content)


def _tar(path, files):
  mode = 'w:xz' if str(path).endswith('.xz') else 'w:gz'
  with tarfile.open(path, mode) as archive:
    for name, content in files.items():
      info = tarfile.TarInfo(f'./{name}')
      info.size = len(content)
      archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize('task, write', [
    ('sst2', _zip), ('mnli', _zip), ('civil_comments', _zip),
    ('wiki_toxicity', _zip), ('sentiment140', _zip), ('ag_news', _tar),
    ('imdb', _tar)])
def test_archives(task, write, raw, tmp_path):
  raw_data.WRITERS[task](tmp_path / 'unpacked')
  _, expected = _stage(task, tmp_path / 'unpacked', tmp_path)
  (tmp_path / 'scratch').mkdir()
  name = raw_files.DATASETS[task].sources[0].name
  files = _files(tmp_path / 'unpacked')
  write(raw / name, {**files, '__MACOSX/._train.tsv': b'\0'})
  counts, served = _stage(task, raw, tmp_path)
  assert served == expected
  assert list(counts) == [name]


def test_imdb_in_parts(raw, tmp_path):
  raw_data.WRITERS['imdb'](tmp_path / 'unpacked')
  files = _files(tmp_path / 'unpacked')
  unsup = {name: text for name, text in files.items() if 'unsup' in name}
  _tar(raw / 'aclImdb_unsup.tar.xz', unsup)
  _tar(raw / 'aclImdb_labelled.tar.xz',
       {name: text for name, text in files.items() if name not in unsup})
  counts, served = _stage('imdb', raw, tmp_path)
  assert counts == {'aclImdb_labelled.tar.xz': 4, 'aclImdb_unsup.tar.xz': 1}
  del files['aclImdb/README']
  assert served == files
  os.remove(raw / 'aclImdb_unsup.tar.xz')
  with pytest.raises(errors.UserError) as error:
    _stage('imdb', raw, tmp_path)
  assert str(error.value) == (
      f'{raw}/aclImdb_labelled.tar.xz holds no aclImdb/train/unsup/*.txt')


def test_wiki_toxicity_of_the_competition(raw, tmp_path):
  raw_data.wiki_toxicity_of_kaggle(raw)
  counts, served = _stage('wiki_toxicity', raw, tmp_path)
  assert counts == {'train.csv': 2, 'test.csv': 2, 'test_labels.csv': 2}
  raw_data.WRITERS['wiki_toxicity'](tmp_path / 'same')
  for name, content in _files(tmp_path / 'same').items():
    assert (list(csv.DictReader(io.StringIO(served[name].decode())))
            == list(csv.DictReader(io.StringIO(content.decode()))))
  (raw / 'test_labels.csv').write_text(
      (raw / 'test_labels.csv').read_text().replace('0c,', '0x,'))
  with pytest.raises(errors.UserError, match='test.csv:3: 0c is not in test_l'):
    _stage('wiki_toxicity', raw, tmp_path / '..' / tmp_path.name / 'raw')


def _message(task, folder, tmp_path):
  with pytest.raises(errors.UserError) as error:
    _stage(task, folder, tmp_path)
  return str(error.value)


_TWEET = b'"4","3","Mon May 11","kindle2","ann","at the zoo"\n'


@pytest.mark.parametrize('task, name, content, problem', [
    ('sst2', 'SST-2/dev.tsv', b'sentence\tlabel\nfine\t0\n \t1\n',
     ':3: sentence: expected text, found none'),
    ('sst2', 'SST-2/dev.tsv', b'sentence\tlabel\nfine\n',
     ':2: expected 2 columns (sentence, label), found 1'),
    ('sst2', 'SST-2/dev.tsv', b'sentence\tlabel\nfine\t2\n',
     ":2: label: unknown label '2': expected one of 0, 1"),
    ('sst2', 'SST-2/dev.tsv', b'fine\t0\ngood\t1\n',
     ':1: expected a header with sentence, label, found fine, 0'),
    ('sst2', 'SST-2/dev.tsv', b'sentence\tlabel\nok\t0\ncaf\xe9\t0\n',
     ':3: expected UTF-8, found byte 0xe9 at column 4'),
    ('sst2', 'SST-2/dev.tsv', b'', ':1: expected a header with sentence, '
     'label, found none'),
    ('sst2', 'SST-2/dev.tsv', b'sentence\tlabel\n', ' is empty'),
    ('ag_news', 'ag_news_csv/test.csv', b'"1","a\nb","c"\n"World","b","c"\n',
     ":3: label: unknown label 'World': expected one of 1, 2, 3, 4"),
    ('ag_news', 'ag_news_csv/test.csv', b'"1","b","c"\n"1","b"\n',
     ':2: expected 3 columns (label, title, description), found 2'),
    ('ag_news', 'ag_news_csv/test.csv', b'"1","b","c\nd\n',
     ':1: the file ends within a quoted value'),
    ('sentiment140', 'testdata.manual.2009.06.14.csv',
     _TWEET + _TWEET.replace(b'"4"', b'"1"'),
     ":2: polarity: unknown label '1': expected one of 0, 2, 4"),
    ('sentiment140', 'testdata.manual.2009.06.14.csv',
     _TWEET + _TWEET[:-8], ':2: the file ends within a quoted value'),
    ('sentiment140', 'testdata.manual.2009.06.14.csv',
     _TWEET + _TWEET[:15], ':2: the file ends within a quoted value'),
    ('sentiment140', 'testdata.manual.2009.06.14.csv', _TWEET + b'"4","3",',
     ':2: expected 6 columns (polarity, id, date, query, user, text), found 3'),
    ('mnli', 'MNLI/dev_matched.tsv',
     b'sentence1\tsentence2\tgold_label\na\tb\tentailmnt\n',
     ":2: gold_label: unknown label 'entailmnt': expected one of entailment, "
     "neutral, contradiction; did you mean 'entailment'?"),
    ('wiki_toxicity', 'wikidata_test.csv',
     b'id,comment_text,toxic\n0a,b,1\n',
     ':1: expected a header with id, comment_text, lang, toxic, severe_toxic, '
     'obscene, threat, insult, identity_hate, found id, comment_text, toxic'),
    ('wiki_toxicity', 'wikidata_test.csv',
     b'id,comment_text,toxic,severe_toxic,obscene,threat,insult,'
     b'identity_hate,lang\n0a,b,1,0,0,2,0,0,en\n',
     ':2: threat: expected a number from 0 to 1, found 2'),
    ('ag_news', 'ag_news_csv/test.csv', b'"1","b"," "\n"1","b",""\n',
     ':2: description: expected text, found none'),
    ('imdb', 'aclImdb/test/pos/1_9.txt', b' \n', ' holds no text'),
    ('imdb', 'aclImdb/test/pos/1_9.txt', b'a\nb\xff',
     ':2: expected UTF-8, found byte 0xff at column 2'),
    ('squad', 'dev-v1.1.json', b'{"data":\n[{"paragraphs": [',
     ':2: not JSON at column 18: Expecting value'),
    ('squad', 'dev-v1.1.json', b'[]',
     ":1: expected an object with the field 'data'"),
    ('squad', 'dev-v1.1.json',
     b'{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1"}]}]}]}',
     ": data[0].paragraphs[0].qas[0] has no 'question'"),
    ('squad', 'dev-v1.1.json',
     b'{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "1", '
     b'"question": "q", "answers": []}]}]}]}',
     ': data[0].paragraphs[0].qas[0]: expected an answer, found none'),
    ('cogs', 'gen.tsv', b'A\tB\tpp_recursion\nA\tB\tpp_recurs',
     ":2: type: unknown label 'pp_recurs'; did you mean 'pp_recursion'?"),
    ('cogs', 'gen.tsv', b'A\tB\tpp_recursion\nA\tB\n',
     ':2: expected 3 columns (sentence, logical form, type), found 2'),
])
def test_malformed(task, name, content, problem, raw, tmp_path):
  raw_data.WRITERS[task](raw)
  (raw / name).write_bytes(content)
  assert _message(task, raw, tmp_path) == f'{raw}/{name}{problem}'


def test_malformed_in_an_archive(raw, tmp_path):
  raw_data.WRITERS['sst2'](tmp_path / 'unpacked')
  files = _files(tmp_path / 'unpacked')
  files['SST-2/dev.tsv'] = b'sentence\tlabel\nfine\t2\n'
  _zip(raw / 'SST-2.zip', files)
  assert _message('sst2', raw, tmp_path).startswith(
      f"{raw}/SST-2.zip/SST-2/dev.tsv:2: label: unknown label '2'")


@pytest.mark.parametrize('task, write', [('sst2', _zip), ('imdb', _tar)])
@pytest.mark.parametrize('damage', [
    lambda content: content[:len(content) * 2 // 3],
    lambda content: b'<html>quota exceeded</html>',
    lambda content: content[:150] + b'\0\1\2\3' * 9 + content[186:]])
def test_broken_archives(task, write, damage, raw, tmp_path):
  raw_data.WRITERS[task](tmp_path / 'unpacked')
  archive = raw / raw_files.DATASETS[task].sources[0].name
  write(archive, _files(tmp_path / 'unpacked'))
  archive.write_bytes(damage(archive.read_bytes()))
  assert f'{archive} is not a whole archive: ' in _message(task, raw, tmp_path)


def test_an_archive_that_is_encrypted(raw, tmp_path):
  raw_data.WRITERS['sst2'](tmp_path / 'unpacked')
  archive = raw / 'SST-2.zip'
  _zip(archive, _files(tmp_path / 'unpacked'))
  content = bytearray(archive.read_bytes())
  for signature, flags in ((b'PK\3\4', 6), (b'PK\1\2', 8)):
    for match in re.finditer(re.escape(signature), bytes(content)):
      content[match.start() + flags] |= 1
  archive.write_bytes(content)
  message = _message('sst2', raw, tmp_path)
  assert f'{archive} is not a whole archive: ' in message
  assert 'is encrypted' in message


@pytest.mark.parametrize('task, name', [
    ('sst2', 'SST-2/train.tsv'), ('trec', 'train_5500.label'),
    ('squad', 'train-v1.1.json')])
def test_the_mark_of_utf8_is_no_text(task, name, raw, tmp_path):
  raw_data.WRITERS[task](raw)
  _, expected = _stage(task, raw, tmp_path)
  (raw / name).write_bytes(b'\xef\xbb\xbf' + (raw / name).read_bytes())
  (tmp_path / 'marked').mkdir()
  assert _stage(task, raw, tmp_path / 'marked')[1] == expected


def test_missing_file(raw, tmp_path):
  raw_data.WRITERS['sst2'](raw)
  os.remove(raw / 'SST-2/dev.tsv')
  assert _message('sst2', raw, tmp_path) == (
      f'{raw}/SST-2/dev.tsv does not exist: --raw_dir names the folder that '
      'holds SST-2/dev.tsv, or SST-2.zip')
