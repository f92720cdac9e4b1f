"""T5 of Hugging Face in PyTorch, where both are installed."""

import numpy as np

from mtf_conv.base import gin_values, machine
from mtf_conv.measure import models


def training_steps(batch, inputs, targets, vocabulary, size, say=print):
  """Builds steps of training of T5 of the size of transformer.mini and size.

  Args:
    batch: rows in a batch.
    inputs: the length of inputs.
    targets: the length of targets.
    vocabulary: how many ids there are.
    size: gin bindings that come after transformer.mini.
    say: is told what is built.

  Returns:
    For each way, eager and compiled, a function without arguments that trains
    the model for one step, with Adafactor. There is none where torch or
    transformers is not installed.
  """
  if not _is_installed():
    return {}
  import torch
  source, answers = _ids(vocabulary, (batch, inputs), (batch, targets))
  models.parse(['models/transformer.mini.gin'], size)
  steps = {}
  for way in ('eager', 'compiled'):
    say(f'Hugging Face, {way}, N={inputs}')
    model = _model(vocabulary)
    steps[f'Hugging Face {way}'] = _step(
        model, torch.compile(model) if way == 'compiled' else model, source,
        answers)
  return steps


def greedy(batch, inputs, length, vocabulary, size, say=print):
  """Builds greedy decoding by a T5 of the size of transformer.mini and size.

  Args:
    batch: sequences at once.
    inputs: the length of inputs.
    length: of the answers; none ends before.
    vocabulary: how many ids there are.
    size: gin bindings that come after transformer.mini.
    say: is told what is built.

  Returns:
    {'Hugging Face': a function without arguments that decodes by `generate`,
    which keeps keys and values}; {} where torch or transformers is not
    installed.
  """
  if not _is_installed():
    return {}
  say(f'Hugging Face, {length} tokens, batch {batch}')
  source, = _ids(vocabulary, (batch, inputs))
  models.parse(['models/transformer.mini.gin'], size)
  model = _model(vocabulary).eval()
  return {'Hugging Face': lambda: model.generate(
      source, max_new_tokens=length, min_new_tokens=length, num_beams=1,
      do_sample=False)}


def _is_installed():
  return machine.has('torch') and machine.has('transformers')


def _ids(vocabulary, *shapes):
  """Returns tensors of random ids."""
  import torch
  torch.set_num_threads(machine.cores())
  rng = np.random.RandomState(0)
  return [torch.tensor(rng.randint(2, vocabulary, shape)) for shape in shapes]


def _model(vocabulary):
  import transformers
  layers = gin_values.macro('num_layers')
  return transformers.T5ForConditionalGeneration(transformers.T5Config(
      vocab_size=-(-vocabulary // 128) * 128, num_layers=layers,
      num_decoder_layers=layers, dropout_rate=0.0, decoder_start_token_id=0,
      **{name: gin_values.macro(name)
         for name in ('d_model', 'd_ff', 'd_kv', 'num_heads')})).train()


def _step(model, called, source, answers):
  import transformers
  optimizer = transformers.optimization.Adafactor(
      model.parameters(), lr=1e-3, scale_parameter=True, relative_step=False,
      warmup_init=False)

  def step():
    called(input_ids=source, labels=answers).loss.backward()
    optimizer.step()
    optimizer.zero_grad()

  return step
