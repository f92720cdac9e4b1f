"""Every task of the paper through t5_mesh_conv: three steps and a score."""

import forked
import pytest
import raw_data
import tiny_vocabulary

from mtf_conv.prepare import builders

# One that is scored by type, of data that TFDS lacks; the others take a minute
# each.
_QUICK = 'cogs_gen'

_SCORES = {
    'civil_comments': ['accuracy', 'f1', 'invalid'],
    'wiki_toxicity': ['accuracy', 'f1', 'invalid'],
    'sentiment140': ['accuracy', 'accuracy_not_neutral', 'invalid'],
    'squad': ['em', 'f1'],
    'cogs': ['exact_match'],
    'cogs_gen': ['exact_match', 'exact_match/prim_to_subj_proper',
                 'exact_match/subj_to_obj_common'],
}


def _run(model_dir, data, *args):
  result = forked.run(
      't5_mesh_conv', f'--model_dir={model_dir}', f'--t5_tfds_data_dir={data}',
      '--gin_file=models/lightconv.tiny.gin',
      *(arg.replace('GIN:', '--gin_file=').replace('SET:', '--gin_param=')
        for arg in args), '--gin_file=hardware/cpu.gin')
  assert result.returncode == 0, result.stdout
  return result.stdout


def _train_and_score(task, split, data, model_dir, examples=-1):
  """Returns what the evaluation of some examples, or all, prints."""
  train = _run(
      model_dir, data, 'GIN:runs/finetune.gin',
      f'GIN:sequence_lengths/{task}.gin', f"SET:MIXTURE_NAME = '{task}'",
      'SET:PRETRAINED = None', 'SET:TRAIN_STEPS = 3',
      "SET:utils.run.batch_size = ('sequences_per_batch', 2)")
  assert '3/3' in train and 'loss=' in train
  return _run(
      model_dir, data, 'GIN:runs/eval.gin', f"SET:MIXTURE_NAME = '{task}'",
      f"SET:utils.run.dataset_split = '{split}'",
      'SET:utils.run.eval_checkpoint_step = -1',
      f'SET:mesh_eval_dataset_fn.num_eval_examples = {examples}',
      "SET:utils.run.batch_size = ('sequences_per_batch', 2)")


@pytest.mark.parametrize('task, split', [
    pytest.param(task, split,
                 marks=() if task == _QUICK else pytest.mark.slow)
    for task, splits in raw_data.EXAMPLES.items()
    for split in splits if split.startswith('validation')])
def test_three_steps_and_a_score(task, split, tmp_path, monkeypatch):
  monkeypatch.setenv(
      'MTF_CONV_VOCAB', tiny_vocabulary.write(tmp_path / 'tiny.model'))
  (tmp_path / 'raw').mkdir()
  raw_data.WRITERS[task](tmp_path / 'raw')
  builders.prepare(task, raw_dir=tmp_path / 'raw', data_dir=tmp_path / 'tfds')
  model_dir = tmp_path / 'model'
  output = _train_and_score(task, split, tmp_path / 'tfds', model_dir)
  for score in _SCORES.get(task, ['accuracy', 'invalid']):
    assert f'{task}/{score}' in output, output
  targets = model_dir / f'{split}_eval' / f'{task}_targets'
  if task != 'squad':  # T5 writes the lists of all its answers.
    assert sorted(targets.read_text().splitlines()) == sorted(
        answer for _, answer in raw_data.EXAMPLES[task][split])


@pytest.mark.slow
@pytest.mark.parametrize('task', ['trec', 'sst2', 'ag_news', 'imdb', 'cogs'])
def test_three_steps_on_the_real_data(task, data_dir, tmp_path, monkeypatch):
  monkeypatch.setenv(
      'MTF_CONV_VOCAB', f'{data_dir}/t5_vocab/sentencepiece.model')
  builders.prepare(task, raw_dir=data_dir, data_dir=tmp_path)
  output = _train_and_score(
      task, 'validation', tmp_path, tmp_path / 'model', examples=8)
  for score in _SCORES.get(task, ['accuracy', 'invalid']):
    assert f'{task}/{score}' in output, output
