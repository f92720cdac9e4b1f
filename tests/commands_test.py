"""Every command of the documentation and of the scripts names what there is."""

import os
import shlex
import subprocess

import commands
import gin
import mtf_harness as harness
import pytest

from mtf_conv.base import errors

PAGES = sorted(
    path.relative_to(commands.ROOT).as_posix() for path in [
        commands.ROOT / 'README.md', commands.ROOT / 'CONTRIBUTING.md',
        *commands.ROOT.glob('docs/**/*.md'),
        *commands.ROOT.glob('run_scripts/**/*.sh')]
    # What these say to write is there to be run.
    if path.name not in ('extend.md', 'use.md'))


def dry_run(script, *args, **variables):
  """Returns the words of the one command that a script prints."""
  result = subprocess.run(
      ['bash', commands.ROOT / 'run_scripts' / script, *args, '--dry_run'],
      env={'PATH': os.environ['PATH'], **variables}, capture_output=True,
      text=True)
  assert result.returncode == 0, result.stderr
  return shlex.split(result.stdout.replace('\\\n', ''))


@pytest.mark.parametrize('page', PAGES)
def test_what_a_page_says_is_there(page):
  text = (commands.ROOT / page).read_text()
  found, bindings = commands.written_in(text), commands.bindings_in(text)
  if page == 'README.md':  # They are found at all.
    assert sum('t5_mesh_conv' in words for words in found) >= 3 and bindings
  for words in found:
    commands.check(words)
  for lines in bindings:
    harness.parse_gin(['models/lightconv.tiny.gin'], lines)


@pytest.mark.parametrize('wrong', [
    't5_mesh_conv --model_dri=x',
    't5_mesh_conv --use_model_api=maybe',
    't5_mesh_conv --gin_file=models/lightcnv.tiny.gin',
    't5_mesh_conv --gin_file=models/lightconv.tiny.gin '
    '--gin_param="mtf_conv.layers.LightConv.filter_sise = 3"',
    't5_mesh_conv --gin_file=runs/eval.gin --gin_param="MIXTURE = \'trec\'"',
    't5_mesh_conv --gin_file=runs/eval.gin '
    '--gin_param="MIXTURE_NAME = \'trek\'"',
    'mtf_conv lits', 'mtf_conv prepare trec --raw=x', 'run_scripts/train.sh',
])
def test_what_is_not_there_is_found(wrong):
  words, = commands.written_in(f'```\n{wrong}\n```\n')
  with pytest.raises((
      AssertionError, KeyError, ValueError, commands.flags.Error)):
    commands.check(words)


@pytest.mark.parametrize('script, variables', [
    ('pretrain.sh', {}),
    ('pretrain.sh', {'TASK': 'c4_span_corruption', 'SIZE': 'base'}),
    ('finetune.sh', {'TASK': 'trec', 'PRETRAINED': 'None'}),
    ('finetune.sh', {'TASK': 'demo_finetune', 'PRETRAINED': 'a/folder',
                     'LEARNING_RATE': '5e-4', 'TRAIN_STEPS': '10'}),
    ('eval.sh', {'TASK': 'cogs', 'DECODE_LENGTH': '256'}),
])
@pytest.mark.parametrize('hardware', [
    {}, {'HARDWARE': 'gpu', 'NUM_GPUS': '8', 'MODEL_PARALLELISM': '2'},
    {'HARDWARE': 'tpu', 'TPU_NAME': 'conv', 'TPU_ZONE': 'europe-west4-a',
     'TPU_PROJECT': 'some', 'TPU_TOPOLOGY': 'v3-8'}])
@pytest.mark.parametrize('model', ['lightconv', 'dilatedconv'])
def test_what_a_script_runs_is_there(script, variables, hardware, model):
  words = dry_run(script, '--gin_param=DATA_SEED = 1'
                  if script != 'eval.sh' else '--t5_tfds_data_dir=x',
                  MODEL=model, **variables, **hardware)
  assert words[0] == 't5_mesh_conv'
  commands.check(words)
  for name, macro in (('NUM_GPUS', int), ('TPU_TOPOLOGY', str),
                      ('LEARNING_RATE', float), ('DECODE_LENGTH', int)):
    if name in {**variables, **hardware}:
      assert gin.query_parameter(f'{name}/macro.value') == macro(
          {**variables, **hardware}[name])


def gpu_mesh(gpus, model_parallelism):
  """What gpu.gin makes of the base model, as the table of docs/hardware.md."""
  commands.check(dry_run(
      'pretrain.sh', SIZE='base', HARDWARE='gpu', NUM_GPUS=str(gpus),
      MODEL_PARALLELISM=str(model_parallelism)))
  mesh = gin.get_configurable('mtf_conv.hardware.gpu_mesh')()
  devices = gin.get_configurable('mtf_conv.hardware.gpu_devices')()
  return ','.join(f'{dim.name}:{dim.size}' for dim in mesh.dims), devices


def test_the_table_of_gpus():
  rows = commands.re.findall(
      r'^\| (\d) \| (\d) \| (\S+) \| (.*) \|$',
      (commands.ROOT / 'docs' / 'hardware.md').read_text(), commands.re.M)
  assert {row[0] for row in rows} == set('1248')
  for gpus, model_parallelism, mesh, written in rows:
    found, devices = gpu_mesh(gpus, model_parallelism)
    assert found == mesh
    assert written == (' '.join(devices) if len(devices) < 3
                       else f'{devices[0]} to {devices[-1]}')


@pytest.mark.parametrize('gpus, model_parallelism', [
    (3, 1), (5, 1), (6, 1), (7, 1), (8, 8)])
def test_gpus_that_do_not_divide(gpus, model_parallelism):
  with pytest.raises(errors.UserError, match='must divide'):
    gpu_mesh(gpus, model_parallelism)


# A path may hold anything but a slash.
@pytest.mark.parametrize('path', [
    'plain', 'a b', "it's", 'two"quotes', r'back\slash', '$HOME', 'a --b',
    '`x`', 'gs://bucket/x', 'x!', '*'])
def test_paths_arrive_as_they_are(path):
  words = dry_run('finetune.sh', TASK='trec', MODEL_DIR=path, PRETRAINED=path,
                  DATA_DIR=path)
  assert f'--model_dir={path}' in words
  assert f'--t5_tfds_data_dir={path}' in words
  commands.check(words)
  assert gin.query_parameter('PRETRAINED/macro.value') == path


@pytest.mark.parametrize('script, variables, said', [
    ('finetune.sh', {'PRETRAINED': 'x'}, 'TASK is not set'),
    ('finetune.sh', {'TASK': 'trec'}, 'PRETRAINED is not set'),
    ('eval.sh', {}, 'TASK is not set'),
    ('pretrain.sh', {'HARDWARE': 'tpu'}, 'TPU_NAME is not set')])
def test_what_is_not_set_is_told_in_one_line(script, variables, said):
  result = subprocess.run(
      ['bash', commands.ROOT / 'run_scripts' / script],
      env={'PATH': os.environ['PATH'], **variables}, capture_output=True,
      text=True)
  assert result.returncode == 2 and not result.stdout
  assert said in result.stderr and result.stderr.count('\n') == 1


@pytest.mark.parametrize('script', ['pretrain.sh', 'finetune.sh', 'eval.sh'])
def test_help_names_every_variable(script):
  text = (commands.ROOT / 'run_scripts' / script).read_text()
  shown = subprocess.run(
      ['bash', commands.ROOT / 'run_scripts' / script, '--help'],
      capture_output=True, text=True, check=True).stdout
  text += (commands.ROOT / 'run_scripts' / 'command.sh').read_text()
  variables = set(commands.re.findall(r'\$\{?([A-Z][A-Z_]+)', text))
  assert variables - {'BASH_SOURCE', 'BASH_REMATCH'} <= set(
      commands.re.findall(r'[A-Z_]+', shown))
