"""Lengths of examples, and the table of the data beside the paper's."""

import gin
import numpy as np
import pytest
import raw_data
import seqio
import tensorflow_datasets as tfds
import tiny_vocabulary

from mtf_conv import cli
from mtf_conv.base import command_line, gin_files, network
from mtf_conv.prepare import builders, input_speed, lengths, raw_files
from mtf_conv.report import table1


@pytest.fixture(autouse=True)
def vocabulary(tmp_path, monkeypatch):
  monkeypatch.setattr(command_line, 'quiet', lambda: None)
  monkeypatch.setenv(
      'MTF_CONV_VOCAB', tiny_vocabulary.write(tmp_path / 'tiny.model'))
  yield
  gin.clear_config()
  seqio.set_tfds_data_dir_override(None)


def test_percentile_is_what_that_many_do_not_exceed():
  assert lengths.percentile(np.arange(1, 11), 90) == 9
  assert lengths.percentile(np.array([4, 9]), 50) == 4
  assert lengths.percentile(np.array([4, 9]), 100) == 9


def test_prepare_shows_lengths_and_table(tmp_path, monkeypatch, capsys):
  (tmp_path / 'raw').mkdir()
  raw_data.WRITERS['sst2'](tmp_path / 'raw')
  vocab = seqio.TaskRegistry.get('sst2').output_features['inputs'].vocabulary
  short, long = sorted(
      len(vocab.encode(inputs)) + 1
      for inputs, _ in raw_data.EXAMPLES['sst2']['train'])
  monkeypatch.setattr(
      gin_files, 'sequence_lengths',
      lambda task: {'inputs': short, 'targets': 99})
  assert cli.main([
      'mtf_conv', 'prepare', 'sst2', f'--raw_dir={tmp_path}/raw',
      f'--data_dir={tmp_path}/tfds', '--lengths', '--table']) == 0
  lines = capsys.readouterr().out.splitlines()
  inputs, targets = (
      next(line.split() for line in lines if line.startswith(feature))
      for feature in ('inputs', 'targets'))
  assert inputs[1:] == [
      str(n) for n in (short, long, long, long, long, short, 1)] + ['(50.0%)']
  assert targets[-3:] == ['99', '0', '(0.0%)']
  rows = [' '.join(line.replace('|', ' ').split()) for line in lines]
  assert f'sst2 2 67,349 67,000 1 872 1,800 2 2 {short} 99' in rows
  assert (f'sentiment140 - 1,600,000 1,600,000 - 498 359 3 2 {short} 99'
          in rows)


def test_no_vocabulary_is_told_first(tmp_path, monkeypatch, capsys):
  monkeypatch.delenv('MTF_CONV_VOCAB')
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  monkeypatch.setattr(network, '_connects', lambda address: False)
  for flag in ('--lengths', '--speed'):
    assert cli.main([
        'mtf_conv', 'prepare', 'trec', f'--raw_dir={tmp_path}/raw',
        f'--data_dir={tmp_path}/tfds', flag]) == 1
    out, err = capsys.readouterr()
    assert not out and err.count('\n') == 1
    assert err.startswith(
        "mtf_conv prepare: T5's vocabulary comes from storage.googleapis.com, "
        'which does not answer; ')
    assert ('set MTF_CONV_VOCAB, or bind '
            'mtf_conv.vocabulary.sentencepiece_model_path, to a file you have'
            in err)


@pytest.mark.parametrize('task', list(raw_files.DATASETS))
def test_every_task_has_lengths(task):
  assert sorted(gin_files.sequence_lengths(task)) == ['inputs', 'targets']


# Labels and logical forms are not to be cut.
@pytest.mark.parametrize('task, percents', [
    ('trec', {'inputs': 90, 'targets': 100}),
    ('ag_news', {'inputs': 90, 'targets': 100}),
    pytest.param('sst2', {'inputs': 90, 'targets': 100},
                 marks=pytest.mark.slow),
    pytest.param('imdb', {'inputs': 90, 'targets': 100},
                 marks=pytest.mark.slow),
    pytest.param('cogs', {'inputs': 100, 'targets': 100},
                 marks=pytest.mark.slow),
])
def test_gin_holds_what_is_measured(
    task, percents, data_dir, monkeypatch, tmp_path):
  monkeypatch.setenv(
      'MTF_CONV_VOCAB', f'{data_dir}/t5_vocab/sentencepiece.model')
  builders.prepare(task, raw_dir=data_dir, data_dir=tmp_path)
  seqio.set_tfds_data_dir_override(str(tmp_path))
  measured = lengths.measure(task)
  assert gin_files.sequence_lengths(task) == {
      feature: lengths.percentile(measured[feature], percent)
      for feature, percent in percents.items()}


def test_the_table_has_the_paper_s_rows():
  assert list(table1.PAPER) == [
      'civil_comments', 'wiki_toxicity', 'imdb', 'sst2', 'sentiment140', 'trec',
      'ag_news', 'cogs']


@pytest.fixture
def uncached(monkeypatch):
  """Tasks remember where their cache was."""
  for task in ('cogs', 'sst2'):
    monkeypatch.setattr(seqio.TaskRegistry.get(task), '_cache_dir', None)
  yield
  seqio.set_global_cache_dirs([])


@pytest.mark.slow  # Builds the graph of a step.
def test_speed_beside_what_is_trained(
    uncached, tmp_path, monkeypatch, capsys):
  (tmp_path / 'raw').mkdir()
  raw_data.WRITERS['cogs'](tmp_path / 'raw')
  builders.prepare('cogs', raw_dir=tmp_path / 'raw', data_dir=tmp_path)
  capsys.readouterr()
  model = tmp_path / 'one_layer.gin'
  model.write_text("include 'models/lightconv.tiny.gin'\nnum_layers = 1\n")
  monkeypatch.setattr(input_speed, 'MODEL', str(model))
  monkeypatch.setattr(input_speed, '_BATCHES', 1)
  input_speed.show_all(['cogs', 'sst2'], tmp_path, seconds=0)
  machine, _, line = capsys.readouterr().out.splitlines()
  assert f'{model}; tokens per second of a core' in machine
  name, prepared, cached, trained, ratio = line.replace(',', '').split()
  assert name == 'cogs' and int(cached) > 0 and int(trained) > 0
  # It is printed with one decimal.
  assert float(ratio) == pytest.approx(
      int(prepared) / int(trained), rel=0.01, abs=0.051)


def test_tokens_that_are_read_are_without_padding(tmp_path, monkeypatch):
  (tmp_path / 'raw').mkdir()
  raw_data.WRITERS['sst2'](tmp_path / 'raw')
  builders.prepare('sst2', raw_dir=tmp_path / 'raw', data_dir=tmp_path)
  seqio.set_tfds_data_dir_override(str(tmp_path))
  # Long enough for any input, and for one label: no two share a row.
  vocab = seqio.TaskRegistry.get('sst2').output_features['inputs'].vocabulary
  examples = [[len(vocab.encode(text)) + 1 for text in example]
              for example in raw_data.EXAMPLES['sst2']['train']]
  longest = max(label for _, label in examples)
  monkeypatch.setattr(
      gin_files, 'sequence_lengths',
      lambda task: {'inputs': 999, 'targets': longest})
  rows, tokens = input_speed.reader('sst2')()
  assert tokens / rows == pytest.approx(
      np.mean(np.sum(examples, axis=1)), rel=0.02)


def test_the_cache_holds_the_same_examples(uncached, tmp_path):
  (tmp_path / 'raw').mkdir()
  raw_data.WRITERS['sst2'](tmp_path / 'raw')
  builders.prepare('sst2', raw_dir=tmp_path / 'raw', data_dir=tmp_path)
  seqio.set_tfds_data_dir_override(str(tmp_path))
  input_speed.write_cache('sst2', tmp_path / 'cache')
  seqio.add_global_cache_dirs([str(tmp_path / 'cache')])
  kept, cached = (
      [row['inputs'].tolist() for row in tfds.as_numpy(
          seqio.TaskRegistry.get('sst2').get_dataset(
              None, 'train', use_cached=cached, shuffle=False))]
      for cached in (False, True))
  assert kept == cached
