"""Checkpoints that are cut short: told by name, and skipped."""

import os
import re
import shutil

import gin
import mesh_tensorflow.transformer.utils as transformer_utils
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from mtf_conv.base import errors, explain
from mtf_conv.model_dir import before_run, checkpoints


@pytest.fixture
def folder(tmp_path):
  """A folder with checkpoints of steps 3, 6 and 9, in two shards each."""
  with tf.Graph().as_default(), tf.Session() as sess:
    with tf.device('cpu:0'):
      tf.get_variable('weights', [100, 7], use_resource=False)
    tf.get_variable('global_step', [], tf.int64, use_resource=False)
    sess.run(tf.global_variables_initializer())
    saver = tf.train.Saver(sharded=True, save_relative_paths=True)
    for step in (3, 6, 9):
      saver.save(sess, str(tmp_path / 'model.ckpt'), global_step=step)
  return tmp_path


def _cut(folder, pattern, size):
  path, = folder.glob(pattern)
  assert path.stat().st_size > size
  os.truncate(path, size)


def _last(folder):
  return os.path.basename(tf.train.latest_checkpoint(str(folder)))


# The step is in a shard of its own, of 8 bytes.
DATA, INDEX = 'model.ckpt-9.data-00001-of-*', 'model.ckpt-9.index'


@pytest.mark.parametrize('pattern, size, problem', [
    (DATA, 0, r'data-\* is cut short \(8 of 2,808 bytes\)'),
    (DATA, 2000, r'data-\* is cut short \(2,0'),
    (INDEX, 0, 'index cannot be read .*too short'),
    (INDEX, 100, 'index cannot be read .*bad magic')])
def test_training_goes_on_from_the_one_before(
    folder, pattern, size, problem, capfd):
  before = sorted(os.listdir(folder))
  _cut(folder, pattern, size)
  checkpoints.go_back(str(folder))
  line, = capfd.readouterr().err.splitlines()
  assert re.match(
      f'Skipped: {re.escape(str(folder))}/model.ckpt-9.{problem}', line)
  assert _last(folder) == 'model.ckpt-6'
  assert sorted(os.listdir(folder)) == before, 'nothing is deleted'
  state = tf.train.get_checkpoint_state(str(folder))
  assert len(state.all_model_checkpoint_paths) == 2

  checkpoints.go_back(str(folder))
  assert not capfd.readouterr().err, 'told once'


def test_a_missing_file_is_skipped(folder, capfd):
  for path in folder.glob('model.ckpt-9.data-*'):
    path.unlink()
  (folder / 'model.ckpt-6.index').unlink()
  checkpoints.go_back(str(folder))
  lines = capfd.readouterr().err.splitlines()
  assert [line.rsplit('/', 1)[1] for line in lines] == [
      'model.ckpt-6.index does not exist.',
      'model.ckpt-9.data-* is cut short (0 of 2,808 bytes).']
  assert _last(folder) == 'model.ckpt-3'


@pytest.mark.parametrize('text', ['', 'model_checkpoint_path: "model.ck', None])
def test_the_file_checkpoint_is_written_again(folder, text, capfd):
  (folder / 'model.ckpt-12_temp').mkdir()  # A save that was killed.
  if text is None:
    (folder / 'checkpoint').unlink()
  else:
    (folder / 'checkpoint').write_text(text)
  _cut(folder, INDEX, 100)
  checkpoints.go_back(str(folder))
  first, second = capfd.readouterr().err.splitlines()
  assert first.endswith('/checkpoint names no checkpoint: looking for the last '
                        'one.')
  assert 'model.ckpt-9.index cannot be read' in second
  assert _last(folder) == 'model.ckpt-6'


def test_an_older_one_may_be_chosen(folder, capfd):
  chosen = 'model_checkpoint_path: "model.ckpt-6"\n'
  (folder / 'checkpoint').write_text(chosen)
  checkpoints.go_back(str(folder))
  assert (folder / 'checkpoint').read_text() == chosen
  os.truncate(folder / 'model.ckpt-6.index', 0)
  checkpoints.go_back(str(folder))
  assert _last(folder) == 'model.ckpt-3', 'not forward to 9'


def test_a_new_folder_is_no_error(tmp_path, capfd):
  checkpoints.go_back(str(tmp_path))
  checkpoints.go_back(str(tmp_path / 'new'))
  assert not capfd.readouterr().err and not os.listdir(tmp_path)


def test_no_whole_checkpoint_is_an_error(folder):
  for path in folder.glob('model.ckpt-*.index'):
    os.truncate(path, 10)
  with pytest.raises(errors.UserError, match=(
      'holds no checkpoint that is whole: .*model.ckpt-9.index cannot')):
    checkpoints.go_back(str(folder))


def test_a_relative_folder_stays_relative(folder, monkeypatch, capfd):
  monkeypatch.chdir(folder.parent)
  _cut(folder, INDEX, 100)
  checkpoints.go_back(folder.name)
  assert (folder / 'checkpoint').read_text().startswith(
      'model_checkpoint_path: "model.ckpt-6"')


def test_a_folder_that_was_moved_goes_on_from_what_is_there(folder, capfd):
  (folder / 'checkpoint').write_text(
      'model_checkpoint_path: "/gone/model.ckpt-9"\n')
  assert checkpoints.resolved(str(folder)) == f'{folder}/model.ckpt-9'
  checkpoints.go_back(str(folder))
  assert capfd.readouterr().err == (
      f'{folder} was moved here: going on from {folder}/model.ckpt-9.\n')
  assert tf.train.latest_checkpoint(str(folder)) == f'{folder}/model.ckpt-9'
  checkpoints.go_back(str(folder))
  assert not capfd.readouterr().err, 'it is said once'


def test_a_copy_reads_its_own_checkpoints(folder, tmp_path, capfd):
  copy = tmp_path / 'copy'
  shutil.copytree(folder, copy)
  (copy / 'checkpoint').write_text(
      f'model_checkpoint_path: "{folder}/model.ckpt-9"\n')
  checkpoints.go_back(str(copy))
  assert tf.train.latest_checkpoint(str(copy)) == f'{copy}/model.ckpt-9'


def _checked(folder, *bindings):
  """What T5's main would read after these bindings."""
  gin.clear_config()
  try:
    gin.parse_config(bindings)
    changed = before_run.check(str(folder)) or {}
    name = 'utils.run.eval_checkpoint_step'
    return changed.get(name, gin.query_parameter(name))
  finally:
    gin.clear_config()


EVAL = "utils.run.mode = 'eval'"


@pytest.mark.parametrize('wanted, found', [
    ("'all'", [3, 9]), ('-1', 9), ('9', 9), ('[2, 9]', [2, 9]),
    ('None', None)])
def test_evaluation_skips_what_is_cut_short(folder, wanted, found, capfd):
  _cut(folder, 'model.ckpt-6.index', 100)
  (folder / 'model.ckpt-12_temp').mkdir()
  steps = _checked(folder, 'utils.run.mode = %MODE', "MODE = 'eval'",
                   f'utils.run.eval_checkpoint_step = {wanted}')
  assert steps == found
  assert ('Skipped' in capfd.readouterr().err) == (wanted == "'all'")
  if steps:
    for path in transformer_utils.get_checkpoint_iterator(steps, str(folder)):
      assert tf.train.load_checkpoint(path).has_tensor('weights')


def test_a_copy_is_evaluated_and_not_what_it_was_copied_from(folder, tmp_path):
  copy = tmp_path / 'copy'
  copy.mkdir()
  for path in folder.glob('*ckpt-6*'):
    shutil.copy(path, copy)
  (copy / 'checkpoint').write_text(
      f'model_checkpoint_path: "{folder}/model.ckpt-6"\n')
  assert _checked(copy, EVAL, 'utils.run.eval_checkpoint_step = -1') == 6
  path, = transformer_utils.get_checkpoint_iterator(6, str(copy))
  assert path == str(copy / 'model.ckpt-6')


def test_one_whose_weights_are_not_numbers_is_skipped(folder, capfd):
  checkpoints.write(str(folder / 'model.ckpt-12'), [
      {'weights': np.full([100, 7], np.nan, np.float32),
       'global_step': np.int64(12)}])
  checkpoints.go_back(str(folder))
  assert capfd.readouterr().err == (
      f'Skipped: {folder}/model.ckpt-12 holds weights that are not numbers '
      '(weights).\n')
  assert _last(folder) == 'model.ckpt-9'
  with pytest.raises(errors.UserError, match='not numbers .*ckpt-9 is whole'):
    checkpoints.require_whole(str(folder / 'model.ckpt-12'), 'PRETRAINED')


def test_the_last_one_that_is_whole_is_evaluated(folder):
  _cut(folder, INDEX, 100)
  assert _checked(folder, EVAL, 'utils.run.eval_checkpoint_step = -1') == 6


def test_what_was_asked_for_must_be_whole(folder):
  _cut(folder, DATA, 100)
  for bindings in ((EVAL, 'utils.run.eval_checkpoint_step = 9'),
                   (EVAL, 'utils.run.eval_checkpoint_step = [3, 8]')):
    with pytest.raises(errors.UserError, match=(
        r'eval_checkpoint_step: .*model.ckpt-9.data-\* is cut short .*'
        'model.ckpt-6 is whole')):
      _checked(folder, *bindings)
  with pytest.raises(errors.UserError, match='no checkpoint to evaluate'):
    _checked(folder / 'none', EVAL, "utils.run.eval_checkpoint_step = 'all'")


@pytest.mark.parametrize('pretrained', ['', '/model.ckpt-9'])
def test_pretrained_must_be_whole(folder, pretrained):
  bindings = ["utils.run.mode = 'train'", 'utils.run.init_checkpoint = %FROM',
              'utils.run.eval_checkpoint_step = None',
              f"FROM = '{folder}{pretrained}'"]
  _checked(folder, *bindings)
  _cut(folder, DATA, 100)
  with pytest.raises(errors.UserError) as error:
    _checked(folder, *bindings)
  line = explain.one_line(error.value)
  assert re.match(r'PRETRAINED: .*model.ckpt-9.data-\* is cut short \(.*\); '
                  '.*model.ckpt-6 is whole$', line)


def test_wrong_bytes_are_told(folder):
  path, = folder.glob(DATA)
  path.write_bytes(b'\xff' * path.stat().st_size)
  with tf.Graph().as_default(), tf.Session() as sess:
    tf.get_variable('weights', [100, 7], use_resource=False)
    with pytest.raises(Exception) as error:  # TensorFlow's own.
      tf.train.Saver().restore(sess, str(folder / 'model.ckpt-9'))
  assert re.match(r'\S+/model.ckpt-9 is damaged: ',
                  explain.one_line(error.value))
