"""A fifth mixer, outside the package, is found by every verb and table."""

import json

import forked
import gin
import numpy as np
import pages
import pandas as pd
import pytest
import tiny_scale

from mtf_conv import cli
from mtf_conv.base import errors, gin_files
from mtf_conv.replicate import grid, paper
from mtf_conv.report import answers, table2


@pytest.fixture
def longconv(tmp_path, monkeypatch):
  """Makes the model longconv of docs/extend.md, tiny and mini."""
  found = pages.blocks('docs/extend.md', 'Add a mixer')
  assert pages.write_files(found, tmp_path) == [
      'my_code/longconv.py', 'my_gin/models/longconv.tiny.gin']
  models = tmp_path / 'my_gin' / 'models'
  (models / 'longconv.mini.gin').write_text(
      (models / 'longconv.tiny.gin').read_text().replace('.tiny.', '.mini.'))
  monkeypatch.setenv('MTF_CONV_GIN', str(tmp_path / 'my_gin'))
  monkeypatch.setenv('PYTHONPATH', str(tmp_path / 'my_code'))
  monkeypatch.syspath_prepend(tmp_path / 'my_code')
  yield
  # gin knows a class by name once, and the next test's module is another.
  gin.clear_config()


def _mtf_conv(*args):
  ended = forked.run('mtf_conv', *args)
  assert ended.returncode == 0, ended.stdout
  return ended.stdout


def test_replicate_and_report(longconv, tmp_path):
  flags = [f'--scale={tiny_scale.write(tmp_path, steps=2)}',
           '--models=longconv', '--learning_rates=0.001',
           f'--root={tmp_path / "root"}']
  _mtf_conv('replicate', 'run', '--jobs=2', '--module_import=longconv',
            *flags)
  out = tmp_path / 'report'
  printed = _mtf_conv('report', f'--out={out}',
                      '--module_import=longconv', *flags)
  for text in (printed, (out / 'table2.md').read_text(),
               (out / 'index.html').read_text()):
    assert 'longconv' in text
  cells = pd.read_csv(out / 'table2.csv')
  ours = cells[cells.model == 'longconv']
  assert set(ours.init) == {'raw', 'pretrained'}
  assert ours.ours.notna().all() and ours.paper.isna().all()
  page = (out / 'index.html').read_text()
  assert 'longconv (of 1 columns: ' in page
  assert 'Pre-trained, longconv is the only one measured here.' in page


def test_params_and_bench(longconv, capsys):
  assert cli.main(['mtf_conv', 'params', '--sizes', 'tiny', '--lengths', '8',
                   '--module_import=longconv']) == 0
  printed = capsys.readouterr().out
  for model in ('transformer', 'lightconv', 'longconv'):
    assert f'{model}.tiny' in printed
  # Those that bench step compares unless it is told.
  assert gin_files.added_model_names('mini') == ['longconv']
  assert cli.main(['mtf_conv', 'bench', 'step', '--quick', '--lengths', '64',
                   '--tokens', '64', '--vocabulary=300', '--models=longconv',
                   '--module_import=longconv']) == 0
  assert 'transformer N=64 / longconv N=64' in capsys.readouterr().out


def _cells():
  """The scores of a model that the paper does not have, beside another's."""
  return pd.DataFrame([
      {'init': init, 'model': model, 'task': task, 'metric': 'exact_match',
       'ours': score, 'std': np.nan, 'seeds': 1, 'error': 1., 'rows': 10,
       'influences': [np.linspace(-1, 1, 10)], 'difference': np.nan,
       'paper': paper.score(model, init, task, 'exact_match')}
      for task in ('cogs', 'my_task')
      for model, scores in (('longconv', (60., 70.)), ('transformer',
                                                       (40., 50.)))
      for init, score in zip(('raw', 'pretrained'), scores)])


def test_a_model_that_the_paper_does_not_have_is_in_the_table():
  cells = _cells()
  assert table2.models(cells) == ['transformer', 'longconv']
  assert table2.columns(cells) == [
      ('cogs', 'exact_match'), ('my_task', 'exact_match')]
  row = table2.arrange(cells)['with pre-training']['longconv']
  assert [(cell.ours, cell.paper, cell.best) for cell in row] == [
      ('70.00', None, True)] * 2


def test_a_model_that_the_paper_does_not_have_is_in_the_answers():
  found = dict(answers.answer(_cells(), {'transformer': 1., 'longconv': 2.}))
  for question, answer in found.items():
    assert answer != 'No numbers yet.', question
  first, second, *_, last = found.values()
  assert 'longconv (of 2 columns: gains in 2)' in first
  assert 'longconv (of 2 columns: ahead in 2)' in second
  assert 'longconv is the only one' in last


def test_the_paper_prints_nothing_of_another_model():
  assert paper.score('longconv', 'pretrained', 'cogs', 'exact_match') is None
  assert paper.score('longconv', 'raw', 'imdb', 'accuracy') is None
  assert paper.score('lightconv', 'pretrained', 'cogs', 'exact_match') == 95
  assert paper.score('lightconv', 'pretrained', 'my_task', 'accuracy') is None


def test_a_scale_that_names_no_model(tmp_path):
  path = tmp_path / 'scale.json'
  for key in ('models', 'without'):
    path.write_text(json.dumps({'like': 'demo', key: ['lightcon']}))
    with pytest.raises(errors.UserError, match=r"'lightcon', which has no gin "
                       r"file models/lightcon.tiny.gin.*mean 'lightconv'"):
      grid.make(grid.load_scale(str(path)), str(tmp_path))


def test_no_module(capsys):
  assert cli.main(['mtf_conv', 'params', '--module_import=no_such_one']) == 1
  assert "no module 'no_such_one'" in capsys.readouterr().err


@pytest.mark.parametrize('what', ['step', 'build', 'figure1'])
def test_bench_of_an_unknown_model(what, capsys):
  assert cli.main(['mtf_conv', 'bench', what, '--models=lightcon']) == 1
  assert "did you mean 'lightconv" in capsys.readouterr().err
