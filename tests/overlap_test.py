"""Rows that models are scored on, looked for in the text of pre-training."""

import pytest
import raw_data
import seqio
import tiny_vocabulary

from mtf_conv import cli
from mtf_conv.base import errors
from mtf_conv.prepare import overlap

WORDS = 'one two three four five six seven eight nine ten a b c d'.split()
TEXT = ['He said: ' + ' '.join(WORDS[1:]).upper() + '!',  # 13 words.
        'is it so far, really, from here to Aspen? Yes',
        'only three words', ' '.join(WORDS[:4]), ' '.join(WORDS[4:9])]
ROWS = [
    ['x y', ' '.join(WORDS) + ', and more'],
    ['It is so far really from here to Aspen'],  # Another order.
    ['is it so far really from here to aspen'],  # All of nine words.
    ['only three words'], [' '.join(WORDS[:9])], []]


def test_13_words_or_all_of_a_short_text():
  first, second = overlap._find([iter(ROWS), [['nothing of it is anywhere']]],
                                iter(TEXT))
  assert first == {'rows': 6, 'found': 2, 'examples': [
      ' '.join(WORDS[1:]), 'is it so far really from here to aspen']}
  assert second == {'rows': 1, 'found': 0, 'examples': []}
  # Documents are apart: a row is in two of them together.
  assert overlap._find([ROWS], [' '.join(TEXT)])[0]['found'] == 3


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
