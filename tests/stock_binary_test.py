"""T5's own binary on TensorFlow 2.12 beside t5_mesh_conv, as it is run here.

run_scripts/stock_binary.sh makes the environment, sets MTF_CONV_STOCK to its
folder and runs this. What is initialized depends on how many operations were
in the graph before: losses are compared from one and the same checkpoint.
The stock binary updates weights while the backward pass reads them. Where
weights are compared it gets, by a module that it imports, what t5_mesh_conv
does about it: resource variables.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow.compat.v1 as tf

from mtf_conv.base import gin_files

STOCK = os.environ.get('MTF_CONV_STOCK')

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not STOCK, reason='run_scripts/stock_binary.sh runs it')]

_STOCK = [
    f'{STOCK}/bin/t5_mesh_transformer',
    '--module_import=mtf_conv.layers', '--module_import=mtf_conv.tasks',
    f'--gin_location_prefix={gin_files.gin_folder()}']
_OURS = [sys.executable, '-m', 'mtf_conv.t5_main', '--verbose']
BINARIES = {
    'stock': _STOCK,
    'ours': _OURS,
    'stock with resource variables': [
        *_STOCK, '--module_import=resource_variables'],
}
UNMODIFIED = ('stock', 'ours')
# Sums have an order of their own for every number of threads and in oneDNN.
ONE_THREAD = {'OMP_NUM_THREADS': '1', 'TF_NUM_INTRAOP_THREADS': '1',
              'TF_NUM_INTEROP_THREADS': '1', 'TF_ENABLE_ONEDNN_OPTS': '0'}
FIRST, LAST = 4, 5


@pytest.fixture(autouse=True)
def resource_variables(monkeypatch, tmp_path):
  """The module that a binary above imports."""
  folder = tmp_path / 'modules'
  folder.mkdir()
  (folder / 'resource_variables.py').write_text(
      'import tensorflow.compat.v1 as tf\ntf.enable_resource_variables()\n')
  monkeypatch.setenv('PYTHONPATH', str(folder))


def run(binary, model_dir, *flags):
  """Returns all that a binary printed about a tiny LightConv."""
  result = subprocess.run(
      [*BINARIES[binary], f'--model_dir={model_dir}',
       '--gin_file=models/lightconv.tiny.gin', '--gin_file=hardware/cpu.gin',
       # T5's checkpoints are in bfloat16: what they round would hide the rest.
       "--gin_param=utils.get_variable_dtype.master_dtype = 'float32'",
       *flags],
      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600,
      env={**os.environ, **ONE_THREAD})
  assert result.returncode == 0, result.stdout[-4000:]
  return result.stdout


def train(binary, model_dir, steps):
  """Returns the loss of the last step."""
  log = run(
      binary, model_dir, '--gin_file=runs/demo_pretrain.gin',
      f'--gin_param=utils.run.train_steps = {steps}',
      '--gin_param=utils.run.save_checkpoints_steps = 4',
      "--gin_param=utils.run.batch_size = ('sequences_per_batch', 8)")
  return float(re.search(r'Loss for final step: (\d+\.\d+)', log).group(1))


def evaluate(binary, model_dir):
  """Returns the predictions and the score of the last checkpoint."""
  log = run(
      binary, model_dir, '--gin_file=runs/eval.gin',
      "--gin_param=MIXTURE_NAME = 'demo_finetune'",
      '--gin_param=DECODE_LENGTH = 4',
      '--gin_param=utils.run.eval_checkpoint_step = -1')
  predictions = pathlib.Path(
      model_dir, 'validation_eval', f'demo_finetune_{LAST}_predictions')
  score = re.search(r'eval/demo_finetune/\S+ at step \d+: (\S+)', log)
  return predictions.read_text(), float(score.group(1))


def weights(model_dir, step):
  reader = tf.train.load_checkpoint(f'{model_dir}/model.ckpt-{step}')
  return {name: reader.get_tensor(name)
          for name in reader.get_variable_to_shape_map()}


def distance(a, b):
  """The Euclidean distance of the weights, without the optimizer's slots."""
  return np.sqrt(sum(np.sum((a[name] - b[name])**2.0) for name in a
                     if '_slot_' not in name and name != 'global_step'))


@pytest.mark.parametrize('first', UNMODIFIED)
def test_both_go_on_alike_from_either_checkpoint(first, tmp_path):
  """Trains by one, goes on by both, and scores by the other."""
  other = {'stock': 'ours', 'ours': 'stock'}[first]
  begun = tmp_path / 'begun'
  start = train(first, begun, FIRST)
  losses = {}
  for binary in BINARIES:
    # The paths in `checkpoint` are relative to its folder.
    shutil.copytree(begun, tmp_path / binary)
    losses[binary] = train(binary, tmp_path / binary, LAST)
  print(f'step {FIRST} by {first}: loss {start:.6f}; step {LAST}: ' + ', '.join(
      f'{loss:.6f} by {binary}' for binary, loss in losses.items()))
  for binary in BINARIES:
    assert losses[binary] == pytest.approx(losses['stock'], rel=1e-5)
    assert losses[binary] != pytest.approx(start, rel=1e-2)

  before = weights(begun, FIRST)
  assert any('LightConv' in name for name in before)
  after = {binary: weights(tmp_path / binary, LAST) for binary in BINARIES}
  assert all(found.keys() == before.keys() for found in after.values())
  change = distance(after['ours'], before)
  assert change
  difference = {binary: distance(found, after['ours']) / change
                for binary, found in after.items() if binary != 'ours'}
  print('weights differ from ours, relative to what the step changes: ' +
        ', '.join(f'{d:.1e} by {binary}' for binary, d in difference.items()))
  assert difference['stock with resource variables'] < 1e-4
  assert difference['stock'] < 0.1

  scored = {}
  for binary in UNMODIFIED:
    # Both read what the one that did not begin has written.
    copy = tmp_path / f'{binary} scores'
    shutil.copytree(tmp_path / other, copy)
    scored[binary] = evaluate(binary, copy)
  print(f'score of step {LAST} by {other}: ' + ', '.join(
      f'{score} by {binary}' for binary, (_, score) in scored.items()))
  assert scored['ours'] == scored['stock']
  assert scored['stock'][0].strip()


def test_compat_has_nothing_to_do():
  """T5's main imports by itself, and layers and tasks alter no module of it."""
  program = '''
import sys
from t5.models import hf_model, mesh_transformer_main
from tensorflow.python.framework import ops
import tensorflow, torch
before = dict(vars(ops))
import mtf_conv.layers, mtf_conv.tasks
assert dict(vars(ops)) == before
assert sys.modules['t5.models.hf_model'] is hf_model
assert hf_model.torch is torch
print(tensorflow.__version__)
'''
  result = subprocess.run(
      [f'{STOCK}/bin/python', '-c', program], capture_output=True, text=True)
  assert result.returncode == 0, result.stderr
  assert result.stdout.startswith('2.12.')
