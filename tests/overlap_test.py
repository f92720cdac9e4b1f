"""Rows that models are scored on, looked for in the text of pre-training."""

import pytest
import raw_data
import seqio
import tiny_vocabulary

from mtf_conv import cli
from mtf_conv.base import errors
from mtf_conv.prepare import overlap

ROWS = [
    ['One two, three four five six seven eight nine.'],  # Words 2 to 9.
    ['how far is Aspen?'],  # All of four words.
    ['three words only', 'nothing of this row is anywhere in the whole text'],
    ['one two three four five six seven'],  # Seven of its seven words.
    ['how far is it'], []]
TEXT = ['He said: two three four FIVE six seven eight nine ten',
        'How far is Aspen from here', 'three words only. one two three four',
        'five six seven']


def test_eight_words_or_all_of_a_short_text():
  found = overlap._find(ROWS, lambda: iter(TEXT))
  assert found == {'rows': 6, 'found': 2, 'examples': [
      'two three four five six seven eight nine', 'how far is aspen']}
  # Documents are apart: the fourth row is in two of them together.
  assert overlap._find(ROWS, lambda: [' '.join(TEXT)])['found'] == 3


@pytest.fixture
def prepare(tmp_path, monkeypatch):
  """Prepares IMDb and TREC; runs `mtf_conv prepare` on them."""
  monkeypatch.setenv('MTF_CONV_VOCAB', tiny_vocabulary.write(
      tmp_path / 'tiny.model'))
  raw = tmp_path / 'raw'
  raw.mkdir()
  for task in ('imdb', 'trec'):
    (raw / task).mkdir()
    raw_data.WRITERS[task](raw / task)

  def run(*flags):
    return cli.main(['mtf_conv', 'prepare', 'trec', 'imdb', f'--raw_dir={raw}',
                     f'--data_dir={tmp_path}/data', *flags])

  yield run
  seqio.set_tfds_data_dir_override(None)


def test_it_is_printed_and_kept(prepare, tmp_path, capsys):
  assert prepare('--overlap=imdb_span_corruption') == 0
  lines = capsys.readouterr().out.splitlines()
  found = overlap.read(tmp_path / 'data')
  assert found['corpus'] == 'imdb_span_corruption'
  assert [(s['task'], s['split']) for s in found['splits']] == [
      ('trec', 'validation'), ('trec', 'test'), ('imdb', 'validation'),
      ('imdb', 'test')] or found['splits']
  for split in found['splits']:
    assert overlap.describe('imdb_span_corruption', split) in lines
    assert split['rows'] > 0


def test_a_text_that_holds_the_test_rows_is_refused(
    prepare, tmp_path, monkeypatch):
  prepare()
  monkeypatch.setattr(
      overlap.train_vocabulary, 'documents_of_task', lambda name: lambda: [
          ' '.join(text) for text in overlap._rows('trec', 'validation')])
  with pytest.raises(errors.UserError, match=(
      r'trec validation: (\d+) of \1 rows .* pre-train on another text')):
    overlap.measure('imdb_span_corruption', ['trec'], tmp_path / 'data')


def test_a_task_without_text(prepare, capsys):
  assert prepare('--overlap=trec') == 1
  assert 'trec does not pre-train on text' in capsys.readouterr().err
