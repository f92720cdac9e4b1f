"""Training on several devices: its loss, and what each of them does."""

import os
import shutil
import subprocess
import sys

import killed_training
import pytest
from tensorflow.core.protobuf import rewriter_config_pb2

from mtf_conv import training
from mtf_conv.base import gin_files
from mtf_conv.measure import devices

MESHES = [mesh for mesh in devices.MESHES if mesh]
STEPS = 20


def test_each_device_has_its_share():
  frame = devices.table(
      ['models/lightconv.tiny.gin'], 8, 32, ['', 'batch:8', 'model:4'],
      vocabulary=1000, size=['num_layers = 1']).set_index('mesh')
  assert (frame.loc['one device', list(devices.COUNTS)] == 1).all()
  assert frame.loc['one device', 'allreduce'] == 0
  batch, model = frame.loc['batch:8'], frame.loc['model:4']
  # The optimizer's work is done on each.
  assert 1 / 8 <= batch.multiply_adds < 0.135
  assert batch.variables == 1 and 1 <= batch.allreduce < 1.05, 'as weights'
  assert 1 / 4 <= model.variables < 0.3 and 1 / 4 <= model.multiply_adds < 0.5


def test_names_of_devices():
  assert training.virtual_devices('batch:2;model:2') == [
      'cpu:0', 'cpu:1', 'cpu:2', 'cpu:3']


def test_a_graph_is_hardly_rewritten():
  options = rewriter_config_pb2.RewriterConfig()
  options.meta_optimizer_iterations = options.ONE
  training.rewrite_little(options)
  on = {field.name for field, value in options.ListFields()
        if value == options.ON and field.enum_type.name == 'Toggle'}
  assert on == {'function_optimization', 'dependency_optimization'}
  off = {field.name for field, value in options.ListFields()
         if value == options.OFF and field.enum_type.name == 'Toggle'}
  assert {'layout_optimizer', 'constant_folding', 'remapping',
          'arithmetic_optimization'} < off
  assert options.memory_optimization == options.NO_MEM_OPT


def _train(model_dir, model, *hardware):
  """Trains with t5_mesh_conv; returns the loss of each step."""
  bindings = [
      'mtf_conv.training.train_model.seed = 1',
      f'utils.run.train_steps = {STEPS}',
      f'utils.run.save_checkpoints_steps = {STEPS}',
      "utils.run.batch_size = ('sequences_per_batch', 8)",
      "utils.get_variable_dtype.master_dtype = 'float32'",
      *_size(model)]
  subprocess.run(
      [sys.executable, '-m', 'mtf_conv.t5_main', f'--model_dir={model_dir}',
       f'--gin_file=models/{model}.tiny.gin',
       '--gin_file=objectives/span_3_15.gin',
       '--gin_file=runs/demo_pretrain.gin', *hardware,
       *(f'--gin_param={binding}' for binding in bindings)],
      check=True, timeout=3000, cwd=model_dir.parent,
      env={**os.environ, 'TF_ENABLE_ONEDNN_OPTS': '0'})
  return dict(killed_training.losses(model_dir / 'log.txt'))


def _size(model):
  return ['num_layers = 1',
          *(['filter_sizes = [7]'] if model == 'dilatedconv' else [])]


@pytest.mark.parametrize('model, meshes', [
    ('lightconv', ['batch:2;model:2']),
    *(pytest.param(model, MESHES, marks=pytest.mark.slow)
      for model in gin_files.model_names('tiny'))])
def test_a_mesh_ends_with_the_loss_of_one_device(model, meshes, tmp_path):
  alone = _train(tmp_path / 'alone', model, '--gin_file=hardware/cpu.gin')
  assert alone[STEPS] < alone[1] - 1, 'it learns'
  for mesh_shape in meshes:
    # Initial weights depend on the graph: all begin with the same.
    model_dir = tmp_path / mesh_shape
    model_dir.mkdir()
    for path in (tmp_path / 'alone').glob('model.ckpt-0.*'):
      shutil.copy(path, model_dir)
    losses = _train(model_dir, model, '--gin_file=hardware/cpu_mesh.gin',
                    f"--gin_param=MESH_SHAPE = '{mesh_shape}'")
    print(model, mesh_shape, losses[STEPS] / alone[STEPS] - 1)
    assert losses[1] == pytest.approx(alone[1], rel=1e-6)
    # Reference variables, which are updated while they are read, would differ.
    assert losses[2] == pytest.approx(alone[2], rel=1e-5)
    assert losses[STEPS] == pytest.approx(alone[STEPS], rel=1e-4)
