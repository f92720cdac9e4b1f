"""t5_mesh_conv through its real command: quiet, resumable, plain about errors.

The first run and the one that is killed are commands; the others are forked.
"""

import glob
import os
import re
import signal
import subprocess
import sys
import time

import forked
import gin
import mesh_tensorflow.transformer.utils  # noqa: F401
import pytest
import seqio
import tensorflow.compat.v1 as tf
from absl import flags

from mtf_conv import (  # noqa: F401, for the registry
    layers,
    t5_main,
    tasks,
    training,
)
from mtf_conv.base import (  # noqa: F401, for the registry
    errors,
    explain,
    gin_files,
    t5_flags,
)


def _flags(model_dir, model='lightconv', steps=6, *extra):
  return [
      f'--model_dir={model_dir}',
      f'--gin_file=models/{model}.tiny.gin',
      '--gin_file=objectives/span_3_15.gin',
      '--gin_file=runs/demo_pretrain.gin', '--gin_file=hardware/cpu.gin',
      '--gin_param=num_layers = 1',
      f'--gin_param=utils.run.train_steps = {steps}',
      '--gin_param=utils.run.save_checkpoints_steps = 3',
      "--gin_param=utils.run.batch_size = ('sequences_per_batch', 4)", *extra]


def _command(*args):
  return [sys.executable, '-m', 'mtf_conv.t5_main', *_flags(*args)]


def _run(*args):
  return forked.run('t5_mesh_conv', *_flags(*args))


def _checkpoints(model_dir):
  return {os.path.basename(path): os.stat(path).st_mtime_ns
          for path in glob.glob(f'{model_dir}/model.ckpt-*')}


def _assert_variables_are_read_once(events):
  """A second read in a step could find what the step has written.

  Args:
    events: the event file of a training, which has its graph. What saves it
      reads variables for itself, in steps of its own.
  """
  graph, *_ = (tf.GraphDef.FromString(event.graph_def) for event in
               tf.train.summary_iterator(str(events)) if event.graph_def)
  nodes = graph.node
  used = {name.lstrip('^').split(':')[0] for node in nodes
          for name in node.input}
  reads = [node.input[0] for node in nodes if node.op == 'ReadVariableOp'
           and node.name in used and not node.name.startswith('save/')]
  trained = [node.name for node in nodes if node.op == 'VarHandleOp' and
             node.name.endswith('_slice_0')]
  assert len(trained) > 10
  assert [reads.count(name) for name in trained] == [1] * len(trained)


def test_trains_quietly_resumes_and_refuses_another_model(tmp_path):
  model_dir = tmp_path / 'a model'
  first = subprocess.run(
      _command(model_dir), text=True, stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT, timeout=300, cwd='/')
  assert first.returncode == 0, first.stdout
  assert 'loss=' in first.stdout and '6/6' in first.stdout
  assert 'WARNING' not in first.stdout and 'tensorflow' not in first.stdout
  assert (model_dir / 'log.txt').stat().st_size > 10000
  assert 'model.ckpt-6.index' in _checkpoints(model_dir)
  assert not [*model_dir.glob('*.meta'), *model_dir.glob('graph.pbtxt')]
  _assert_variables_are_read_once(*model_dir.glob('events*'))

  again = _run(model_dir, 'lightconv', 9)
  assert again.returncode == 0, again.stdout
  assert 'goes on at step 6' in again.stdout
  assert 'model.ckpt-9.index' in _checkpoints(model_dir)

  before = _checkpoints(model_dir)
  other = _run(model_dir, 'dynamicconv', 12)
  assert other.returncode == 1
  line, log = other.stdout.strip().splitlines()[-2:]
  assert 'holds another model (LightConv, 1+1 blocks, d_model 64' in line
  assert '(DynamicConv, 1+1 blocks, d_model 64' in line
  assert log.endswith(str(model_dir / 'log.txt'))
  assert _checkpoints(model_dir) == before


@pytest.mark.slow  # preemption_test kills its forks, and looks at more.
def test_killed_training_goes_on(tmp_path):
  process = subprocess.Popen(
      _command(tmp_path, 'lightconv', 100000), stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL)
  deadline = time.time() + 240
  while not glob.glob(f'{tmp_path}/model.ckpt-[1-9]*.index'):
    assert process.poll() is None and time.time() < deadline
    time.sleep(0.2)
  process.send_signal(signal.SIGKILL)
  process.wait()
  last = max(int(path.rsplit('-', 1)[1].split('.')[0])
             for path in glob.glob(f'{tmp_path}/model.ckpt-*.index'))
  resumed = _run(tmp_path, 'lightconv', last + 3)
  assert resumed.returncode == 0, resumed.stdout
  assert 'goes on at step ' in resumed.stdout
  assert f'{last + 3}/{last + 3}' in resumed.stdout


@pytest.mark.parametrize('wrong, said', [
    ('gin_param=LEARNING_RATE=3', "unexpected argument 'gin_param=LEARNING_RATE"
     "=3': expected flags; did you mean --gin_param=LEARNING_RATE=3?"),
    ('gin_parm=x', "unexpected argument 'gin_parm=x': expected flags; did you "
     "mean '--gin_param'?")])
def test_an_argument_without_dashes_is_one_line(wrong, said, tmp_path):
  result = forked.run('t5_mesh_conv', f'--model_dir={tmp_path}', wrong)
  assert result.returncode == 2
  assert result.stdout == said + '\n'


@pytest.mark.parametrize('wrong, said', [
    ('--gin_fil=models/x.gin', "unknown flag '--gin_fil'; did you mean "
     "'--gin_file'?; --help says what there is\n"),
    # Like no other: absl says so, once all that defines flags is imported.
    ('--xyzzy=1', "Unknown command line flag 'xyzzy'\n")])
def test_wrong_flag_is_one_line(tmp_path, wrong, said):
  result = _run(tmp_path, 'lightconv', 3, wrong)
  assert result.returncode == 2
  assert result.stdout == said


def test_flags_are_known_before_t5_is_imported(tmp_path):
  t5_main.preload()
  assert {*flags.FLAGS} <= t5_flags.names()
  named = set(re.findall(r'--(\w+)', t5_flags.HELP))
  assert named <= {*t5_flags.names(), 'helpfull'}
  for argument in (['--help'], ['--gin_parm=a', '--model_dir=a']):
    code = ('import sys; from mtf_conv import t5_main\n'
            'try: t5_main.console_entry_point(sys.argv)\n'
            'finally: print("tensorflow" in sys.modules)')
    done = subprocess.run([sys.executable, '-c', code, *argument],
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode in (0, 2) and done.stdout.endswith('False\n')


@pytest.mark.parametrize('argv', [
    ['--model_dir', '-x', '--noverbose'], ['-gin_file=--gin_fil=x'],
    ['--gin_param', '--gin_parm'], ['--', '--xyzzy'], ['--only_check_args']])
def test_right_flags_are_not_refused(argv):
  assert t5_flags.wrong(['t5_mesh_conv', *argv]) is None


def _explained(fn):
  try:
    fn()
  except Exception as error:
    return explain.one_line(error)
  raise AssertionError('nothing was raised')


def test_wrong_names_are_told_with_the_nearest():
  gin.clear_config()
  gin.add_config_file_search_path(gin_files.gin_folder())
  assert _explained(
      lambda: gin.parse_config_file('models/lightcnv.tiny.gin')) == (
          "Unknown gin file 'models/lightcnv.tiny.gin'; did you mean "
          "'models/lightconv.tiny.gin'?")
  assert _explained(lambda: gin.parse_config(
      'mtf_conv.layers.LightCnv.filter_size = 3')) == (
          "Unknown gin configurable 'mtf_conv.layers.LightCnv'; did you mean "
          "'mtf_conv.layers.LightConv'?")
  assert _explained(lambda: seqio.get_mixture_or_task('trek')) == (
      "Unknown task 'trek'; did you mean 'trec'?")


def _told(tmp_path, saved, wanted):
  """Saves variables and reads others: returns what the user is told."""
  def session(variables):
    for name, (shape, dtype) in variables.items():
      tf.Variable(tf.zeros(shape, dtype), name=name, use_resource=False)
    return tf.Session()

  with tf.Graph().as_default(), session(saved) as sess:
    sess.run(tf.global_variables_initializer())
    path = tf.train.Saver().save(sess, str(tmp_path / 'model.ckpt'))
  with tf.Graph().as_default(), session(wanted) as sess:
    return _explained(lambda: tf.train.Saver().restore(sess, path))


FLOATS = ([2, 3], tf.float32)


@pytest.mark.parametrize('wanted, message', [
    ({'a': FLOATS, 'b': FLOATS}, r'it has no b\)'),
    ({'a': ([2, 4], tf.float32)}, r'of shape \[2,3\], not \[2,4\]\)')])
def test_another_model_s_checkpoint_is_told(wanted, message, tmp_path):
  line = _told(tmp_path, {'a': FLOATS}, wanted)
  assert re.search('holds another model.*' + message, line)


def test_another_dtype_is_told_with_the_binding(tmp_path):
  line = _told(tmp_path, {'a': FLOATS}, {'a': ([2, 3], tf.bfloat16)})
  assert 'is in float32, and bfloat16 was to be read' in line
  assert "utils.get_variable_dtype.master_dtype = 'float32'" in line


@pytest.mark.parametrize('error, line', [
    (ValueError("Shape of variable a/b:0 ((16, 256)) doesn't match with shape "
                'of tensor a/b ([16, 16]) from checkpoint reader.'),
     'PRETRAINED is of another model: a/b is [16, 16], not [16, 256]: give the '
     'gin files of its model, or another checkpoint'),
    (ValueError('Empty module name'), '--module_import names no module: give '
     'one, such as --module_import=my_tasks'),
    (ModuleNotFoundError("No module named 'my_tasks'"), "Unknown module "
     "'my_tasks': it must be installed, or its folder in PYTHONPATH"),
    (ValueError("No bindings specified for 'x/gin.macro' in config: "),
     'No gin file binds the macro x: expected a line x = ...'),
    (AssertionError("'trec' does not exist in any of the task cache "
                    'directories.'),
     'use_cached (=True): trec is in no cache of SeqIO: leave it False, or '
     'name the folder of the cache by --additional_task_cache_dirs'),
    (UnicodeDecodeError('utf-8', b'abc\xe1', 3, 4, 'invalid byte'),
     'The data of the run cannot be read: not UTF-8: byte 0xe1 at position 3 '
     'of a text'),
    (tf.errors.InvalidArgumentError(
        None, None, 'Graph execution error:\n\nExpect 2 fields but have 1 in '
        'record 0\n\t [[{{node DecodeCSV}}]]\n\t [[IteratorGetNext]]'),
     'The data of the run cannot be read: Expect 2 fields but have 1 in record '
     '0')])
def test_what_others_say_is_a_line(error, line):
  assert explain.one_line(error) == line


def test_unknown_argument_of_a_layer_is_told():
  gin.clear_config()
  line = _explained(lambda: gin.parse_config(
      'mtf_conv.layers.LightConv.filter_sise = 3'))
  assert line is not None and 'filter_sise' in line and 'filter_size' in line


def test_only_user_errors_are_shortened():
  assert explain.one_line(errors.UserError('which one')) == 'which one'
  assert explain.one_line(ValueError('shapes differ')) is None
  # gin adds where a wrong argument came from.
  assert _explained(lambda: layers.LightConv(12, 64, num_filters=5)) == (
      'num_heads (=12) must be a multiple of num_filters (=5)')


@pytest.mark.parametrize('variables, expected', [
    ({'shared/embedding': (128, 64),
      'encoder/block_000/layer_000/LightConv/wi': (64, 64),
      'encoder/block_000/layer_000/LightConv/wi_slot_v': (64,),
      'encoder/block_000/layer_000/rms_norm/scale': (64,),
      'decoder/block_000/layer_000/SelfAttention/q': (64, 64),
      'decoder/block_001/layer_000/SelfAttention/q': (64, 64),
      'global_step': ()},
     'LightConv and SelfAttention, 1+2 blocks, d_model 64, 20,544 weights'),
    ({'conv1d/kernel': (3, 3)},
     'no block that is known, 0+0 blocks, 9 weights'),
])
def test_models_are_named_by_their_variables(variables, expected):
  assert training.describe(variables) == expected
