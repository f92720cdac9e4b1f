"""What a run is told is looked at before it begins: a line for each mistake."""

import random
import re

import forked
import mutations
import pytest

from mtf_conv.base import explain

MODEL = '--gin_file=models/lightconv.tiny.gin'
TRAIN = [MODEL, '--gin_file=runs/demo_finetune.gin',
         '--gin_file=hardware/cpu.gin', '--gin_param=PRETRAINED = None']
EVALUATE = [MODEL, '--gin_file=runs/eval.gin', '--gin_file=hardware/cpu.gin',
            "--gin_param=MIXTURE_NAME = 'demo_finetune'"]


def _check(model_dir, *flags):
  result = forked.run(
      't5_mesh_conv', f'--model_dir={model_dir}', '--check', *flags)
  return result.returncode, result.stdout.splitlines()


def test_a_sound_run_is_not_begun(tmp_path):
  assert _check(tmp_path / 'run', *TRAIN) == (
      0, [f'{tmp_path}/run: nothing wrong was found.'])
  assert not list((tmp_path / 'run').glob('*ckpt*'))


@pytest.mark.parametrize('left_out, said', [
    (0, 'No gin file says which model: give one, such as '
     '--gin_file=models/lightconv.base.gin'),
    (1, 'No gin file says what is done: give one, such as '
     '--gin_file=runs/finetune.gin or runs/eval.gin'),
    (2, 'No gin file says what the run is computed on: give '
     '--gin_file=hardware/cpu.gin'),
    (3, 'PRETRAINED is not set: give --gin_param="PRETRAINED = \'FOLDER\'"')])
def test_what_is_missing_is_named(left_out, said, tmp_path):
  code, lines = _check(tmp_path, *TRAIN[:left_out], *TRAIN[left_out + 1:])
  assert code == 1 and lines[0].startswith(said) and len(lines) == 2


@pytest.mark.parametrize('base, binding, said', [
    (TRAIN, 'TRAIN_STEPS = 1e2',
     'TRAIN_STEPS (=100.0) must be a whole number above 0, such as 100'),
    (TRAIN, "LEARNING_RATE = '0.1'",
     "LEARNING_RATE (='0.1') must be a number that is not below 0, such as "
     '0.001'),
    (TRAIN, 'MIXTURE_NAME = trec',
     'gin does not know the value trec: a string has quotes, as in '
     '--gin_param="MIXTURE_NAME = \'trec\'"'),
    (TRAIN, "utils.run.batch_size = ('sequence_per_batch', 4)",
     "utils.run.batch_size (=('sequence_per_batch', 4)) must be such as "
     "('sequences_per_batch', 64); did you mean 'sequences_per_batch'?"),
    (TRAIN, "utils.run.batch_size = ('tokens_per_batch', 100)",
     "utils.run.batch_size (=('tokens_per_batch', 100)) must be a multiple of "
     "the sequence length 32, such as ('tokens_per_batch', 96)"),
    (TRAIN, 'TRAIN_STEPS  100',
     "gin cannot read a file or a binding: Couldn't parse statement, expected "
     "':' or '='. (line 2) 'TRAIN_STEPS  100': expected NAME = VALUE, as in "
     '--gin_param="TRAIN_STEPS = 100"'),
    (EVALUATE, "MIXTURE_NAME = 'demo_pretrain'",
     "MIXTURE_NAME (='demo_pretrain') has no metric, nothing would be scored: "
     'give a task that has one; pre-training is measured with '
     "utils.run.mode = 'perplexity_eval'"),
    (TRAIN, 'MIXTURE_NAME = 7', 'MIXTURE_NAME (=7) must be the name of a task '
     "in quotes, such as 'trec'"),
    (TRAIN, 'd_model = 0',
     'd_model (=0) must be a whole number above 0, such as 1024'),
    (TRAIN, "utils.run.mode = 'trian'", "utils.run.mode (='trian') must be one "
     'of train, eval, perplexity_eval, score_eval, infer, score_from_strings, '
     'score_from_file, score_from_dataset, export, export_infer, '
     "export_score; did you mean 'train'?"),
    (EVALUATE, "utils.run.eval_checkpoint_step = 'latest'",
     "utils.run.eval_checkpoint_step (='latest') must be 'all', -1 for the "
     'last checkpoint, a step above 0, or a list of steps'),
    (EVALUATE, "utils.run.batch_size = ('tokens_per_batch', 64)",
     "utils.run.batch_size (=('tokens_per_batch', 64)) counts tokens, and no "
     "sequence_length is set: give ('sequences_per_batch', 64)"),
    (EVALUATE, "utils.run.mode = 'perplexity_eval'",
     "utils.run.sequence_length is not set, and mode 'perplexity_eval' needs "
     'it: give --gin_param="utils.run.sequence_length = {\'inputs\': 512, '
     '\'targets\': 128}"'),
    (EVALUATE, 'Bitransformer.decode.beam_size = 2\n'
     'Bitransformer.decode.temperature = 0.5',
     'Bitransformer.decode.temperature (=0.5) must be 0 with a beam_size of 2: '
     'T5 searches with beams or samples'),
    (TRAIN, 'd_model = None',
     'd_model (=None) must be a whole number above 0, such as 1024'),
    (TRAIN, 'PRETRAINED = 1e9', 'PRETRAINED (=1000000000.0) must be a '
     'checkpoint or the folder of one in quotes, or None'),
    (TRAIN, 'utils.run.mesh_shape = None', 'utils.run.mesh_shape (=None) must '
     "be such as 'batch:4;model:2', or '' for one device"),
    (TRAIN, "DATA_SEED = ('a', 'b')", "DATA_SEED (=('a', 'b')) must be a whole "
     'number that is not below 0, such as 0, or None'),
    (EVALUATE, "DECODE_LENGTH = {'inputs': 1}", "DECODE_LENGTH (={'inputs': 1})"
     ' must be a whole number above 0, such as 128'),
    (EVALUATE, 'utils.run.eval_checkpoint_step = []',
     "utils.run.eval_checkpoint_step (=[]) must be 'all', -1 for the last "
     'checkpoint, a step above 0, or a list of steps'),
    (TRAIN, "utils.run.sequence_length = {'inputs': 16, 'tagets': 8}",
     "utils.run.sequence_length (={'inputs': 16, 'tagets': 8}) has 'tagets': "
     "expected inputs and targets; did you mean 'targets'?"),
    (EVALUATE, 'utils.run.dataset_split = True', 'utils.run.dataset_split '
     "(=True) must be the name of a split in quotes, such as 'validation'"),
])
def test_a_wrong_value_is_one_line(base, binding, said, tmp_path):
  code, lines = _check(tmp_path, *base, f'--gin_param={binding}')
  assert (code, lines[0]) == (1, said)
  assert lines[1:] == [f'Everything that was printed: {tmp_path}/log.txt']


CPU_MESH = [*TRAIN[:2], '--gin_file=hardware/cpu_mesh.gin', TRAIN[3]]


@pytest.mark.parametrize('base, binding, said', [
    (TRAIN, "utils.run.mesh_shape = 'batch:3'",
     "utils.run.mesh_shape (='batch:3') has 3 processors, and "
     'utils.run.mesh_devices names 1: give --gin_file=hardware/cpu_mesh.gin '
     'with --gin_param="MESH_SHAPE = \'batch:3\'", or leave it to the file of '
     'the hardware'),
    (TRAIN, "utils.run.mesh_shape = 'batch'",
     "utils.run.mesh_shape (='batch') must be such as 'batch:4;model:2'"),
    (TRAIN, "MESH_SHAPE = 'batch:3'",
     'MESH_SHAPE is used by no gin file of this run'),
    (TRAIN, 'TRAIN_STEP = 3', 'TRAIN_STEP is used by no gin file of this run; '
     "did you mean 'TRAIN_STEPS'?"),
    (CPU_MESH, "MESH_SHAPE = 'batch:3'",
     "utils.run.batch_size (=('sequences_per_batch', 32)) must be a multiple "
     "of the 3 parts of batch in MESH_SHAPE (='batch:3'), such as "
     "('sequences_per_batch', 30)"),
    (EVALUATE, "utils.run.mode = 'score_eval'\n"
     "utils.run.sequence_length = {'inputs': 32, 'targets': 16}",
     "MIXTURE_NAME (='demo_finetune') has metrics of answers, and mode "
     "'score_eval' needs those of scores: give utils.run.mode = 'eval'; "
     'mtf_conv score ranks classes'),
])
def test_what_has_no_effect_or_cannot_be_is_one_line(
    base, binding, said, tmp_path):
  code, lines = _check(tmp_path, *base, f'--gin_param={binding}')
  assert (code, lines[:-1]) == (1, [said])


def test_an_evaluation_that_does_not_end_says_so(tmp_path):
  code, lines = _check(
      tmp_path, *EVALUATE, '--gin_param=utils.run.eval_checkpoint_step = None')
  assert code == 0 and 'waits for new checkpoints' in lines[0]


def test_inputs_that_will_be_cut_are_counted(tmp_path):
  code, lines = _check(
      tmp_path, *TRAIN,
      "--gin_param=utils.run.sequence_length = {'inputs': 8, 'targets': 16}")
  assert code == 0 and len(lines) == 2
  assert re.match(
      r'demo_finetune: \d+ of the first 240 inputs have more than 8 tokens '
      r'\(up to 12\) and are cut: utils.run.sequence_length says', lines[0])


@pytest.mark.parametrize('mode, instead', [
    ('finetune', 'runs/finetune.gin'), ('predict', 'mtf_conv predict'),
    ('export_score', 'mtf_conv export')])
def test_the_model_api_is_for_scripts(mode, instead, tmp_path):
  code, (line,) = _check(tmp_path, *TRAIN, '--use_model_api', f'--mode={mode}')
  assert code == 2 and instead in line and 'docs/use.md' in line


@pytest.mark.parametrize('folder', ['/proc/run', '{}/a_file', '/dev/null/run'])
def test_a_folder_that_cannot_be_made_is_one_line(folder, tmp_path):
  (tmp_path / 'a_file').write_text('')
  code, (line,) = _check(folder.format(tmp_path), *TRAIN)
  assert code == 2 and 'must be a folder that can be written to' in line


def test_what_nobody_foresaw_names_what_may_be_its_cause():
  error = TypeError(
      "'abc' is no count\n  In call to configurable 'decode' (<function>)\n")
  assert explain.unexpected(error, ["A = 'abc'", 'B = 2']) == (
      "TypeError: 'abc' is no count (in decode)\nIs a value wrong? A = 'abc'")
  assert explain.unexpected(ValueError('no'), ['A = 1', 'B = 2']).endswith(
      '\nIs a value wrong? A = 1; B = 2')
  assert explain.unexpected(ValueError('no')) == 'ValueError: no'


def test_all_that_is_wrong_is_said_at_once(tmp_path):
  code, lines = _check(tmp_path, *TRAIN[1:3], '--gin_param=TRAIN_STEPS = 0')
  assert code == 1 and len(lines) == 4
  assert lines[0].startswith('PRETRAINED') and 'which model' in lines[1]
  assert lines[2].startswith('TRAIN_STEPS (=0)')


@pytest.mark.parametrize('flags', [['--model_dir=/other'], ['--model_dir']])
def test_two_folders_are_refused(flags, tmp_path):
  code, lines = _check(tmp_path, *TRAIN, *flags)
  assert code == 2 and len(lines) == 1


def test_a_folder_that_tensorflow_cannot_read_is_refused(tmp_path):
  code, lines = _check(tmp_path / 'run[1]', *TRAIN)
  assert code == 2 and len(lines) == 1
  assert lines[0].startswith(
      f"--model_dir (='{tmp_path}/run[1]') must be without [, ], * and ?")


@pytest.mark.parametrize('count', [
    20, pytest.param(2000, marks=pytest.mark.slow)])
def test_mutated_commands_end_plainly(count, tmp_path):
  for seed in range(count):
    flags = mutations.of_command(TRAIN, random.Random(seed))
    code, lines = _check(tmp_path / 'run', *flags)
    text = '\n'.join(lines)
    assert len(lines) <= 5 and not re.search(
        'Traceback|Is a value wrong', text), (seed, flags, text)
    assert lines and (code == 0) == bool(
        re.search('nothing wrong was found', text)), (seed, flags, text)
  code, lines = _check(tmp_path / 'run', *TRAIN)
  assert code == 0, 'the folder is still of use'
