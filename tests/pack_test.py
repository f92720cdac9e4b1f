"""A trained model as a folder for others. tests/use_test.py scores one anew."""

import json
import os

import pytest
import trained_folder

from mtf_conv import cli
from mtf_conv.commands import pack as command
from mtf_conv.commands import verify
from mtf_conv.model_dir import record

SCORE = {'task': 'trec', 'metric': 'accuracy', 'score': 80.0, 'rows': 500,
         'error': 1.8}


@pytest.fixture
def model_dir(tmp_path):
  """A folder with the record of a run."""
  folder = tmp_path / 'a model'
  trained_folder.write(folder)
  start, = record.read(str(folder))
  (folder / 'record.json').write_text(json.dumps({'starts': [{
      **start, 'command': f't5_mesh_conv --model_dir={folder}', 'seed': 3,
      'data': [{'task': 'trec'}], 'commit': 'c0ffee', 'machine': 'a processor',
      'versions': {'tensorflow': '2.15.1', 'mtf_conv': '0.1.0'}}]}))
  return folder


@pytest.fixture
def packed(model_dir, tmp_path, monkeypatch):
  monkeypatch.setattr(command, 'evaluation', lambda *unused: [SCORE])
  assert cli.main(['mtf_conv', 'pack', str(model_dir),
                   str(tmp_path / 'packed')]) == 0
  return tmp_path / 'packed'


def test_a_pack_is_a_model_dir_of_its_own(packed, model_dir, tmp_path, capsys):
  (model_dir / 'vocabulary.model').unlink()
  os.rename(packed, tmp_path / 'elsewhere')
  folder = tmp_path / 'elsewhere'
  (tmp_path / 'in.txt').write_text('bako limu\n')
  assert cli.main([
      'mtf_conv', 'predict', f'--model_dir={folder}',
      f'--input={tmp_path}/in.txt', f'--output={tmp_path}/out.txt']) == 0
  assert len((tmp_path / 'out.txt').read_text().splitlines()) == 1
  card = (folder / 'README.md').read_text()
  assert '* trec, accuracy: 80.00 ± 1.80, the standard error' in card
  assert 'LightConv, 2+2 blocks, d_model 16' in card and 'c0ffee' in card
  assert 't5_mesh_conv --model_dir=.\n' in card
  for path in folder.iterdir():
    assert str(model_dir).encode() not in path.read_bytes(), path
  capsys.readouterr()
  assert cli.main(['mtf_conv', 'verify', str(folder), '--files_only']) == 0
  assert 'are what was packed' in capsys.readouterr().out


def test_what_has_changed_is_named(packed, capsys):
  (packed / 'operative_config.gin').write_text('')
  (packed / 'vocabulary.model').unlink()
  assert cli.main(['mtf_conv', 'verify', str(packed)]) == 1
  assert capsys.readouterr().err == (
      f'mtf_conv verify: {packed} is not what was packed: missing: '
      'vocabulary.model; changed: operative_config.gin\n')


@pytest.mark.parametrize('here, says, code', [
    (80.0, 'the same', 0), (79.4, 'differs by 0.60 (500 rows)', 0),
    (75.0, 'more than its error', 1)])
def test_a_score_is_compared(here, says, code, packed, monkeypatch, capsys):
  monkeypatch.setattr(verify, '_evaluate', lambda *unused: 0)
  monkeypatch.setattr(
      command, 'evaluation', lambda *unused: [{**SCORE, 'score': here}])
  assert cli.main(['mtf_conv', 'verify', str(packed)]) == code
  line = capsys.readouterr().out.splitlines()[-1]
  assert says in line and f'80.00 when packed, {here:.2f} here' in line


def test_a_metric_that_is_gone_is_named(packed, monkeypatch, capsys):
  monkeypatch.setattr(verify, '_evaluate', lambda *unused: 0)
  monkeypatch.setattr(command, 'evaluation', lambda *unused: [])
  assert cli.main(['mtf_conv', 'verify', str(packed)]) == 1
  assert 'the task has no such metric here' in capsys.readouterr().out


def test_an_evaluation_that_fails_is_no_score(packed, monkeypatch):
  monkeypatch.setattr(verify, '_evaluate', lambda *unused: 3)
  assert cli.main(['mtf_conv', 'verify', str(packed)]) == 3


@pytest.mark.parametrize('change, says', [
    (lambda folder: (folder / 'record.json').unlink(), 'has no record.json'),
    (lambda folder: (folder / 'operative_config.gin').unlink(),
     'operative_config.gin does not exist'),
    (lambda folder: (folder / 'model.ckpt-30.index').unlink(), 'ckpt-30')])
def test_what_cannot_be_packed(change, says, model_dir, tmp_path, capsys):
  change(model_dir)
  out = tmp_path / 'packed'
  assert cli.main(['mtf_conv', 'pack', str(model_dir), str(out)]) == 1
  assert says in capsys.readouterr().err and not out.exists()


def test_no_pack(tmp_path, capsys):
  assert cli.main(['mtf_conv', 'verify', str(tmp_path)]) == 1
  assert 'has no pack.json: mtf_conv pack writes one' in capsys.readouterr().err
  (tmp_path / 'pack.json').write_text('{"files"')
  assert cli.main(['mtf_conv', 'verify', str(tmp_path)]) == 1
  assert 'pack.json is damaged' in capsys.readouterr().err
