"""Trainings that are killed end as if nothing had happened.

Two trainings agree to the last bit on one thread, without oneDNN, when
checkpoints are in float32: T5's are in bfloat16, so that the weights are
rounded where a training was restarted.
"""

import json
import os
import signal
import subprocess
import sys

import killed_training
import numpy as np
import pytest
import tensorflow.compat.v1 as tf

SAVE_EVERY = 4


def _train(tmp_path, steps, kills, *bindings, undisturbed=True):
  """Trains once as it is, unless told not to, and once with kills."""
  argv = [
      't5_mesh_conv', '--model_dir=MODEL_DIR',
      '--gin_file=models/lightconv.tiny.gin',
      '--gin_file=objectives/span_3_15.gin',
      '--gin_file=runs/demo_pretrain.gin', '--gin_file=hardware/cpu.gin',
      *(f'--gin_param={binding}' for binding in (
          'mtf_conv.training.train_model.seed = 1',
          "utils.get_variable_dtype.master_dtype = 'float32'",
          f'utils.run.train_steps = {steps}',
          f'utils.run.save_checkpoints_steps = {SAVE_EVERY}',
          "utils.run.batch_size = ('sequences_per_batch', 4)", *bindings))]
  environment = {
      **os.environ, 'MTF_CONV_PROGRESS': '0', 'TF_ENABLE_ONEDNN_OPTS': '0',
      **dict.fromkeys(('OMP_NUM_THREADS', 'TF_NUM_INTRAOP_THREADS',
                       'TF_NUM_INTEROP_THREADS'), '1')}
  done = subprocess.run(
      [sys.executable, killed_training.__file__], env=environment, text=True,
      capture_output=True, timeout=3000, cwd=tmp_path, input=json.dumps({
          'argv': argv, 'kills': kills, 'undisturbed': undisturbed,
          'plain_dir': str(tmp_path / 'plain'),
          'killed_dir': str(tmp_path / 'killed')}))
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout, object_hook=_tuples), done.stderr


def _tuples(value):
  """Losses as they were: JSON knows lists only."""
  if 'losses' in value:
    value['losses'] = [tuple(pair) for pair in value['losses']]
  return value


def _curves(model_dir):
  """The losses that TensorBoard shows, of each run: a list of dicts."""
  curves = []
  for path in sorted(model_dir.glob('events.out.tfevents.*')):
    curves.append({})
    try:
      for event in tf.train.summary_iterator(str(path)):
        curves[-1].update((event.step, value.simple_value)
                          for value in event.summary.value
                          if value.tag == 'loss')
    except tf.errors.DataLossError:
      pass  # Killed while it was written.
  return curves


def _check(result, tmp_path, steps):
  """The same losses at each step, and few steps done twice."""
  *killed, last = result['runs']
  assert last['status'] == 0 and last['losses'][-1][0] == steps
  for run in killed:
    assert run['status'] == signal.SIGKILL
  # Up to the first kill, the training itself was undisturbed.
  expected = dict((result['plain'] or killed[0])['losses'])
  for run in result['runs']:
    for step, loss in run['losses']:
      assert expected.setdefault(step, loss) == loss
  assert sorted(expected) == list(range(1, steps + 1)), 'the log has them all'
  assert expected[steps] < expected[1] - 0.5, 'it learns'
  for before, after in zip(killed, result['runs'][1:]):
    done, first = before['losses'][-1][0], after['losses'][0][0]
    # One more checkpoint is lost with that which was cut short.
    lost = done - (first - 1)
    assert 0 <= lost <= SAVE_EVERY * (2 if 'cut' in before else 1)
    if 'cut' in before:
      assert first <= before['cut'], 'it was not read'
  curve = {}
  for run in _curves(tmp_path / 'killed'):
    curve.update(run)
  assert sorted(curve) == list(range(1, steps + 1))
  np.testing.assert_allclose(
      [curve[step] for step in curve], [expected[step] for step in curve],
      rtol=1e-6)


def test_killed_and_cut_short(tmp_path):
  result, said = _train(
      tmp_path, 30, [(2 * SAVE_EVERY + 1, 4 * SAVE_EVERY, True)],
      'num_layers = 1', undisturbed=False)
  _check(result, tmp_path, 30)
  skipped, = [line for line in said.splitlines() if 'Skipped' in line]
  cut = result['runs'][0]['cut']
  assert f'killed/model.ckpt-{cut}.data-* is cut short' in skipped
  before_kill = _curves(tmp_path / 'killed')[0]
  assert set(range(1, cut + 1)) <= set(before_kill), 'written out with it'


@pytest.mark.slow
def test_ten_kills(tmp_path):
  kills = [(1, 2 * SAVE_EVERY, False)] * 10
  result, _ = _train(tmp_path, 80, kills)
  _check(result, tmp_path, 80)


@pytest.mark.slow
def test_what_bfloat16_checkpoints_change(tmp_path):
  """As T5 has it: near the undisturbed training, and no nearer."""
  result, _ = _train(
      tmp_path, 40, [(1, 2 * SAVE_EVERY, False)] * 3,
      "utils.get_variable_dtype.master_dtype = 'bfloat16'")
  plain = dict(result['plain']['losses'])
  differences = [abs(loss / plain[step] - 1) for run in result['runs']
                 for step, loss in run['losses']]
  assert 1e-5 < max(differences) < 1e-2
