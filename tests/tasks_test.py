"""Tests of the tasks: whole examples, span corruption, errors, metrics."""

import gzip
import importlib
import json

import gin
import numpy as np
import pytest
import raw_data
import seqio
import seqio.test_utils
import tensorflow as tf
import tensorflow_datasets as tfds
import tiny_vocabulary
from mtf_conv.tasks import labels, metrics, text_files

from mtf_conv import tasks, vocabulary
from mtf_conv.base import documents, errors, network
from mtf_conv.prepare import builders

_LENGTHS = {'inputs': 512, 'targets': 114}


@pytest.fixture(scope='module')
def model(tmp_path_factory):
  return tiny_vocabulary.write(tmp_path_factory.mktemp('model') / 'tiny.model')


@pytest.fixture(autouse=True)
def tiny(model, monkeypatch):
  """The tiny vocabulary, and neither network nor text unless a test says so."""
  monkeypatch.setenv('MTF_CONV_VOCAB', model)
  monkeypatch.delenv('MTF_CONV_TEXT', raising=False)
  monkeypatch.delenv('MTF_CONV_TEXT_VALIDATION', raising=False)
  monkeypatch.setattr(network, '_connects', lambda address: False)
  gin.clear_config()
  yield
  gin.clear_config()
  seqio.set_tfds_data_dir_override(None)


def _task(name):
  return seqio.get_mixture_or_task(name)


def _rows(name, split='train', lengths=None, **kwargs):
  kwargs = {'shuffle': False, 'seed': 0, **kwargs}
  dataset = _task(name).get_dataset(lengths or _LENGTHS, split, **kwargs)
  return list(tfds.as_numpy(dataset))


def _texts(**kwargs):
  dataset = text_files.TextFileDataSource().get_dataset('train', **kwargs)
  return [row['text'].decode() for row in tfds.as_numpy(dataset)]


def test_importing_registers():
  importlib.import_module('mtf_conv.tasks')
  names = set(seqio.TaskRegistry.names())
  assert {'c4_span_corruption', 'text_span_corruption', 'trec'} <= names


# Classification.


@pytest.fixture(scope='session')
def prepared(tmp_path_factory):
  """TFDS's data folder with small data for all tasks."""
  data = tmp_path_factory.mktemp('tfds')
  for name, write in raw_data.WRITERS.items():
    raw = tmp_path_factory.mktemp(name)
    write(raw)
    builders.prepare(name, raw_dir=raw, data_dir=data)
  return str(data)


@pytest.mark.parametrize('name, split', [
    (name, split) for name, splits in raw_data.EXAMPLES.items()
    for split in splits])
def test_examples(name, split, prepared):
  seqio.set_tfds_data_dir_override(prepared)
  expected = raw_data.EXAMPLES[name][split]
  vocab = vocabulary.ConfiguredVocabulary()
  rows = sorted(_rows(name, split), key=lambda row: row['inputs_pretokenized'])
  assert [(row['inputs_pretokenized'].decode(),
           row['targets_pretokenized'].decode()) for row in rows] == expected
  for row, (inputs, targets) in zip(rows, expected):
    assert row['inputs'].tolist() == vocab.encode(inputs) + [1]
    assert row['targets'].tolist() == vocab.encode(targets) + [1]
  counted = _task(name).num_input_examples(split)
  assert counted == (None if 'not_neutral' in split else len(expected))
  assert {*_task(name).splits} - {labels.DEV} == {*raw_data.EXAMPLES[name]}


def test_table2_mixes_the_paper_s_tasks(prepared):
  seqio.set_tfds_data_dir_override(prepared)
  mixture = _task('table2')
  assert [task.name for task in mixture.tasks] == [
      'ag_news', 'civil_comments', 'imdb', 'sentiment140', 'sst2', 'trec',
      'wiki_toxicity']
  assert [mixture.get_rate(task) for task in mixture.tasks] == [
      2, 3, 2, 2, 2, 3, 2]
  rows = mixture.get_dataset(_LENGTHS, 'train', shuffle=False, seed=0)
  vocab = vocabulary.ConfiguredVocabulary()
  found = {tuple(row['targets']) for row in tfds.as_numpy(rows.take(99))}
  assert found == {
      (*vocab.encode(targets), 1) for task in mixture.tasks
      for _, targets in raw_data.EXAMPLES[task.name]['train']}


def test_trec_has_the_label_names_of_tfds(prepared):
  seqio.set_tfds_data_dir_override(prepared)
  features = _task('trec').source.tfds_dataset.info.features
  labels = tasks.classification.DATASETS['trec'].labels
  assert list(labels) == features['label-fine'].names
  assert len(set(labels)) == 47


def test_trec_that_is_not_prepared(tmp_path):
  seqio.set_tfds_data_dir_override(str(tmp_path))
  with pytest.raises(errors.UserError) as error:
    _rows('trec')
  assert str(error.value) == (
      f'trec:1.0.0 is not prepared in {tmp_path}: run mtf_conv prepare trec '
      f'--data_dir={tmp_path}')


def test_trec_in_t5s_vocabulary(data_dir, monkeypatch, tmp_path):
  monkeypatch.setenv(
      'MTF_CONV_VOCAB', f'{data_dir}/t5_vocab/sentencepiece.model')
  builders.prepare('trec', raw_dir=f'{data_dir}/trec', data_dir=tmp_path)
  seqio.set_tfds_data_dir_override(str(tmp_path))
  rows = {row['inputs_pretokenized']: row for row in _rows('trec', 'test')}
  assert len(rows) == 500
  row = rows[b'trec question: How far is it from Denver to Aspen ?']
  # trec question : How far is it from Denver to As pen _ ? </s>
  assert row['inputs'].tolist() == [
      18172, 822, 10, 571, 623, 19, 34, 45, 12154, 12, 282, 3208, 3, 58, 1]
  # dis t </s>
  assert row['targets'].tolist() == [1028, 17, 1]
  train = [row['inputs_pretokenized'] for row in _rows('trec', 'train')]
  assert len(train) == 5452
  # The line with the byte that is not UTF-8.
  assert (b'trec question: Which city has the oldest relationship as a sister '
          b'city with Los Angeles ?') in train


def test_label_accuracy():
  # Right, wrong, no label, no label (spelling counts): 1 of 4, and 2 of 4.
  assert metrics.label_accuracy(
      ['city', 'city', 'food', 'food'], ['city', 'food', '', 'Food'],
      labels=('city', 'food')) == {'accuracy': 25.0, 'invalid': 50.0}


def _scores(name, targets, predictions):
  scores = {}
  for metric_fn in _task(name).metric_fns:
    scores.update(metric_fn(targets, predictions))
  return scores


def test_trec_is_scored_in_percent():
  assert _scores('trec', ['abb', 'def', 'exp'], ['abb', 'def', 'xyz']) == {
      'accuracy': pytest.approx(200 / 3), 'invalid': pytest.approx(100 / 3)}


@pytest.mark.parametrize('name', ['civil_comments', 'wiki_toxicity'])
def test_f1_is_that_of_toxic(name):
  # 2 of 3 toxic ones are found, one of 3 that are said to be is none, and what
  # is no label is not toxic.
  assert _scores(
      name, ['toxic', 'toxic', 'toxic', 'not toxic', 'not toxic'],
      ['toxic', 'toxic', 'nice', 'toxic', 'not toxic']) == {
          'accuracy': 60, 'invalid': 20, 'f1': pytest.approx(200 / 3)}
  assert _scores(name, ['not toxic'], ['not toxic'])['f1'] == 0


def test_sentiment140_is_scored_with_and_without_neutral_rows():
  assert _scores(
      'sentiment140', ['negative', 'neutral', 'positive', 'positive'],
      ['negative', 'positive', 'positive', '']) == {
          'accuracy': 50, 'invalid': 25,
          'accuracy_not_neutral': pytest.approx(200 / 3)}


def test_squad_is_scored_as_t5_does(prepared):
  seqio.set_tfds_data_dir_override(prepared)
  row, = _rows('squad', 'validation')
  target = _task('squad').postprocess_fn(
      row['targets_pretokenized'].decode(), example=row, is_target=True)
  assert target == ['in Colorado', 'Colorado']
  # The better one counts; articles, case and punctuation do not.
  assert _scores('squad', [target, target], ['the colorado.', 'in Aspen']) == {
      'em': 50, 'f1': 75}


def test_cogs_is_scored_by_type(prepared):
  seqio.set_tfds_data_dir_override(prepared)
  task = _task('cogs_gen')
  targets = [
      task.postprocess_fn(row['targets_pretokenized'].decode(), example=row,
                          is_target=True)
      for row in sorted(_rows('cogs_gen', 'validation'),
                        key=lambda row: row['distribution'])]
  assert targets == [
      ('run . agent ( x _ 1 , Paula )', 'prim_to_subj_proper'),
      ('hen ( x _ 1 ) AND run . agent ( x _ 2 , x _ 1 )', 'subj_to_obj_common')]
  # What T5 writes to the file of targets.
  assert str(targets[0]) == 'run . agent ( x _ 1 , Paula )'
  predictions = [task.postprocess_fn(text, example={}) for text in (
      'run . agent ( x _ 1 , Paula )', 'hen ( x _ 1 )')]
  assert _scores('cogs_gen', targets, predictions) == {
      'exact_match': 50, 'exact_match/prim_to_subj_proper': 100,
      'exact_match/subj_to_obj_common': 0}
  assert _scores('cogs', targets[:1], predictions[:1]) == {'exact_match': 100}


# Local text.


def test_txt_documents_end_at_blank_lines(tmp_path, monkeypatch):
  (tmp_path / 'a.txt').write_bytes(
      b'\xef\xbb\xbfone\r\ntwo\r\n\r\n \t\r\nthree\r\n\r\n')
  (tmp_path / 'b.txt').write_text('a review<br />in one file')
  (tmp_path / 'c.txt').write_text('\n\n')
  monkeypatch.setenv('MTF_CONV_TEXT', f'{tmp_path}/*.txt')
  assert _texts(shuffle=False) == [
      'one\ntwo', 'three', 'a review<br />in one file']


def test_no_document_is_longer_than_what_span_corruption_keeps(tmp_path):
  line = 'x' * 999 + '\n'
  (tmp_path / 'long.txt').write_text(line * 200)
  found = list(documents.read_documents(str(tmp_path / 'long.txt')))
  assert [len(d) for d in found] == [64999, 64999, 64999, 4999]
  assert '\n'.join(found) == (line * 200).strip()


def test_tokens_documents_are_articles(tmp_path):
  path = tmp_path / 'wiki.valid.tokens'
  path.write_text(' \n = Lobster = \n \n It is blue . \n \n = = Diet = = \n \n'
                  ' It eats fish . \n \n = Aspen = \n \n A town . \n')
  lobster, aspen = documents.read_documents(str(path))
  assert lobster.startswith('= Lobster =') and 'eats fish' in lobster
  assert aspen.split() == ['=', 'Aspen', '=', 'A', 'town', '.']


@pytest.mark.parametrize('name, opener', [
    ('c4.jsonl', open), ('c4.json.gz', gzip.open)])
def test_jsonl(name, opener, tmp_path, monkeypatch):
  with opener(tmp_path / name, 'wt', encoding='utf-8') as f:
    for text in ('caf\u00e9\nau lait', '', 'second'):
      f.write(json.dumps({'text': text, 'url': 'u'}) + '\n\n')
  monkeypatch.setenv('MTF_CONV_TEXT', str(tmp_path / name))
  assert _texts(shuffle=False) == ['caf\u00e9\nau lait', 'second']


@pytest.mark.parametrize('line, problem', [
    (b'{"text": "cut of', 'not JSON: Unterminated string starting at: line 1 '
     'column 10 (char 9)'),
    (b'["text"]', "expected an object with the field 'text', found list"),
    (b'{"txt": "a", "id": 1}',
     "no field 'text' among ['id', 'txt']; did you mean 'txt'?"),
    (b'{"text": 3}', "the field 'text' must be a string, found int"),
    (b'{"text": "caf\xe9"}', 'not UTF-8: byte 0xe9 at column 14'),
])
def test_malformed_jsonl_line(line, problem, tmp_path, monkeypatch):
  path = tmp_path / 'bad.jsonl'
  path.write_bytes(b'{"text": "fine"}\n\n' + line + b'\n')
  expected = f'{path}:3: {problem}'
  with pytest.raises(errors.UserError) as error:
    list(documents.read_documents(str(path)))
  assert str(error.value) == expected
  # And through tf.data, which wraps it.
  monkeypatch.setenv('MTF_CONV_TEXT', str(path))
  with pytest.raises(tf.errors.OpError) as error:
    _rows('text_span_corruption')
  assert errors.user_message(error.value) == expected


def test_a_download_broken_off(tmp_path):
  path = tmp_path / 'c4.jsonl.gz'
  path.write_bytes(gzip.compress(b'{"text": "fine"}\n' * 99)[:-9])
  with pytest.raises(errors.UserError, match=f'{path}: cannot be read after'):
    list(documents.read_documents(str(path)))


@pytest.mark.parametrize('pattern, problem', [
    ('none*.txt', "no text file matches '{}/none*.txt'"),
    ('', "{}/ is a folder: name its files, as in {}/*.txt"),
    ('a.csv', '{}/a.csv: the name of a text file ends in one of .txt, .tokens, '
     '.jsonl, .json (or these and .gz)'),
])
def test_wrong_files(pattern, problem, tmp_path, monkeypatch):
  (tmp_path / 'a.csv').write_text('a,b')
  monkeypatch.setenv('MTF_CONV_TEXT', f'{tmp_path}/{pattern}')
  with pytest.raises(errors.UserError) as error:
    _rows('text_span_corruption')
  assert str(error.value) == problem.replace('{}', str(tmp_path))


def test_no_files_named():
  with pytest.raises(errors.UserError, match='no validation text: set MTF_CONV_'
                     'TEXT_VALIDATION .*mtf_conv.tasks.text_files.validation'):
    _rows('text_span_corruption', 'validation')


def test_gin_names_files(tmp_path, monkeypatch):
  for name in 'abc':
    (tmp_path / f'{name}.txt').write_text(name)
  monkeypatch.setenv('MTF_CONV_TEXT', f'{tmp_path}/c.txt, {tmp_path}/a.txt')
  assert _texts(shuffle=False) == ['a', 'c']
  gin.parse_config(
      f"mtf_conv.tasks.text_files.train = ['{tmp_path}/[ab].txt']")
  assert _texts(shuffle=False) == ['a', 'b']


@pytest.fixture
def corpus(tmp_path, monkeypatch):
  """Three files, of 40 documents each."""
  names = [f'{file} {number}' for file in 'abc' for number in range(40)]
  for file in 'abc':
    (tmp_path / f'{file}.txt').write_text(
        '\n\n'.join(name for name in names if name.startswith(file)))
  monkeypatch.setenv('MTF_CONV_TEXT', f'{tmp_path}/*.txt')
  return names


def test_shuffling_follows_the_seed(corpus):
  first = _texts(shuffle=True, seed=1)
  assert first == _texts(shuffle=True, seed=1)
  assert first != _texts(shuffle=True, seed=2)
  assert first != corpus
  assert sorted(first) == sorted(_texts(shuffle=False)) == sorted(corpus)


def test_shards_part_the_files(corpus):
  shards = [_texts(shuffle=False, shard_info=seqio.ShardInfo(i, 2))
            for i in range(2)]
  assert shards[1] == [name for name in corpus if name.startswith('b')]
  assert sorted(shards[0] + shards[1]) == sorted(corpus)
  assert len(_task('text_span_corruption').source.list_shards('train')) == 3


# Span corruption.


def _spans(row, vocab):
  """Reads an example of span corruption.

  Returns:
    (segment, spans): the ids before corruption, and the corrupted spans.
  """
  size, extra = vocab.vocab_size, vocab.extra_ids
  inputs, targets = row['inputs'].tolist(), row['targets'].tolist()
  assert inputs.pop() == targets.pop() == 1
  starts = [i for i, id in enumerate(targets) if id >= size - extra]
  sentinels = [targets[i] for i in starts]
  # <extra_id_0>, <extra_id_1>, ..., which are the last ids, backwards.
  assert sentinels == list(range(size - 1, size - 1 - len(starts), -1))
  assert [id for id in inputs if id >= size - extra] == sentinels
  spans = {targets[i]: targets[i + 1:end]
           for i, end in zip(starts, starts[1:] + [len(targets)])}
  segment = []
  for id in inputs:
    segment += spans.get(id, [id])
  return segment, list(spans.values())


def test_span_corruption(tmp_path, monkeypatch):
  text = ' '.join(tiny_vocabulary.words(2000))
  (tmp_path / 'a.txt').write_text(text)
  monkeypatch.setenv('MTF_CONV_TEXT', f'{tmp_path}/a.txt')
  vocab = vocabulary.ConfiguredVocabulary()
  rows = _rows('text_span_corruption')
  segments = []
  for row in rows[:-1]:
    assert row['inputs'].shape == (512,)
    assert row['targets'].shape == (114,)
    segment, spans = _spans(row, vocab)
    # 512 inputs: 568 tokens, less the 85 that are noise (15%), plus 28
    # sentinels (85 / 3) and the end. 114 targets: 85 + 28 + 1.
    assert len(segment) == 568
    assert sum(len(span) for span in spans) == 85
    assert len(spans) == 28
    assert min(len(span) for span in spans) >= 1
    segments += segment
  assert len(rows) > 5
  assert segments + _spans(rows[-1], vocab)[0] == vocab.encode(text)


def test_span_corruption_differs_between_seeds(tmp_path, monkeypatch):
  (tmp_path / 'a.txt').write_text(' '.join(tiny_vocabulary.words(400)))
  monkeypatch.setenv('MTF_CONV_TEXT', f'{tmp_path}/a.txt')
  first, again, other = (
      _rows('text_span_corruption', seed=seed)[0]['targets']
      for seed in (1, 1, 2))
  assert np.array_equal(first, again)
  assert not np.array_equal(first, other)


def test_documents_are_joined(tmp_path, monkeypatch):
  (tmp_path / 'a.txt').write_text('\n\n'.join(tiny_vocabulary.words(100)))
  monkeypatch.setenv('MTF_CONV_TEXT', f'{tmp_path}/a.txt')
  assert len(_rows('text_span_corruption')) == 1


def test_targets_too_short(tmp_path, monkeypatch):
  (tmp_path / 'a.txt').write_text('bako')
  monkeypatch.setenv('MTF_CONV_TEXT', f'{tmp_path}/a.txt')
  with pytest.raises(ValueError, match=r'\(114\) is greater than .* \(113\)'):
    _rows('text_span_corruption', lengths={'inputs': 512, 'targets': 113})


def test_c4():
  text = ' '.join(tiny_vocabulary.words(300))
  data = {'train': {'text': text}}
  vocab = vocabulary.ConfiguredVocabulary()
  with seqio.test_utils.DataInjector('c4_span_corruption', data):
    rows = _rows('c4_span_corruption')
  assert _spans(rows[0], vocab)[0] == vocab.encode(text)[:568]


def test_c4s_version_is_gins(tmp_path):
  seqio.set_tfds_data_dir_override(str(tmp_path))
  with pytest.raises(errors.UserError, match='c4/en:2.2.0 is not prepared in'):
    _rows('c4_span_corruption')
  gin.parse_config("mtf_conv.tasks.c4.version = '3.1.0'")
  with pytest.raises(errors.UserError, match='c4/en:3.1.0 is not prepared in'):
    _rows('c4_span_corruption')


def test_real_text(data_dir, monkeypatch):
  monkeypatch.setenv(
      'MTF_CONV_VOCAB', f'{data_dir}/t5_vocab/sentencepiece.model')
  monkeypatch.setenv('MTF_CONV_TEXT', f'{data_dir}/corpus/c4_sample/*.jsonl')
  assert len(_texts(shuffle=True, seed=0)) == 1480
  vocab = vocabulary.ConfiguredVocabulary()
  spans = [_spans(row, vocab)[1] for row in _rows('text_span_corruption')[:99]
           if len(row['inputs']) == 512]
  lengths = [len(span) for row in spans for span in row]
  assert np.mean(lengths) == pytest.approx(85 / 28)
