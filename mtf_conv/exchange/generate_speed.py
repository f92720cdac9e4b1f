"""Greedy decoding in PyTorch: the twin of the Transformer over LightConv's."""

import tempfile

import numpy as np

from mtf_conv.base import machine
from mtf_conv.exchange import description, hugging_face
from mtf_conv.measure import models
from mtf_conv.measure.speed import decode, results, timing


def bench(seconds, lengths=decode.WHOLE_LENGTHS, batches=(1, 16), say=print):
  """Times whole answers of mini models.

  Args:
    seconds: for how long each case is timed.
    lengths: of answers.
    batches: how many sequences are decoded at once.
    say: is told of each case before it is measured.

  Returns:
    A list of results.row.

  Raises:
    errors.UserError: torch or transformers is not installed.
  """
  torch = hugging_face.libraries()
  torch.set_num_threads(machine.cores())
  kinds = ('transformer', 'lightconv')
  twins = {kind: _twin(kind) for kind in kinds}
  rows = []
  for batch in batches:
    source = torch.tensor(np.random.RandomState(0).randint(
        2, models.VOCABULARY, (batch, decode.INPUTS)))
    for length in lengths:
      say(f'PyTorch, {length} tokens, batch {batch}')

      def generate(twin, length=length, source=source):
        with torch.no_grad():
          twin.generate(source, min_new_tokens=length, max_new_tokens=length,
                        do_sample=False, num_beams=1)

      times = timing.interleave(
          {kind: lambda twin=twin: generate(twin)
           for kind, twin in twins.items()}, seconds, min_rounds=3, warm_up=1)
      rows += results.rows(
          f'PyTorch, {length} tokens greedily, mini, {decode.INPUTS} inputs, '
          f'batch {batch}', times, [kinds])
  return rows


def _twin(kind):
  """The twin of a mini model, with random weights."""
  with tempfile.NamedTemporaryFile('w', suffix='.gin') as file:
    file.write(f"include 'models/{kind}.mini.gin'\n")
    file.flush()
    described = description.from_gin(file.name)
  rows = -(-models.VOCABULARY // 128) * 128
  return hugging_face.twin(described, rows).eval()
