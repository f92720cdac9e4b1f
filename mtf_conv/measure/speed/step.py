"""A step of training: the Transformer over convolutions, at any length."""

import pandas as pd

from mtf_conv.base import gin_files
from mtf_conv.measure import models
from mtf_conv.measure.speed import (
  hugging_face,
  peak_memory,
  results,
  timing,
  whole_models,
)

LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)
PEAK_LENGTHS = (512, 2048)
PEER_LENGTHS = (64, 512, 2048)
TOKENS = 4096
TARGETS = 64


def bench(seconds, lengths=LENGTHS, peak_lengths=PEAK_LENGTHS,
          peer_lengths=PEER_LENGTHS, tokens=TOKENS, size=models.BENCH_SIZE,
          vocabulary=models.VOCABULARY, say=print, kinds=None):
  """Times steps of training of 4+4 layers, d_model 256.

  Args:
    seconds: for how long all are timed.
    lengths: of inputs; targets are 64 long.
    peak_lengths: those of lengths of which memory is measured as well.
    peer_lengths: those of lengths at which T5 of Hugging Face is timed beside
      them, where torch and transformers are installed.
    tokens: input tokens in a batch, at any length.
    size: gin bindings for mini models.
    vocabulary: how many ids there are; T5's.
    say: is told of each case before it is measured.
    kinds: names of models that are compared with the Transformer; lightconv and
      the user's own when None.

  Returns:
    A list of results.row.

  Raises:
    errors.UserError: a model differs from the one of plain convolutions.
  """
  kinds = [kind for kind in kinds or [
      'lightconv', *gin_files.added_model_names('mini')]
           if kind != 'transformer']
  paths = {kind: models.resolve(f'{kind}.mini')[0]
           for kind in ('transformer', *kinds)}
  candidates = {
      f'{kind} N={length}': whole_models.training_step(
          paths[kind], tokens // length, length, TARGETS, vocabulary, size, say)
      for length in lengths for kind in ('transformer', *kinds)}
  peers = {}
  for length in [n for n in peer_lengths if n in lengths]:
    for way, step in hugging_face.training_steps(
        tokens // length, length, TARGETS, vocabulary, size, say).items():
      peers[f'{way} N={length}'] = (length, step)
  times = timing.interleave(
      {**candidates, **{name: step for name, (_, step) in peers.items()}},
      seconds, min_rounds=3, warm_up=1)
  rows = results.rows('train step', times, [
      *((f'transformer N={n}', f'{kind} N={n}')
        for kind in kinds for n in lengths),
      # There are as many input tokens: these are ratios of times per token.
      *((f'{kind} N={n}', f'{kind} N={lengths[0]}')
        for kind in kinds for n in lengths[1:]),
      *((name, f'{kind} N={n}') for kind in kinds
        for name, (n, _) in peers.items())])
  if not peak_memory.can_measure():
    say('no peak memory: only Linux tells it')
    peak_lengths = ()
  for length in [n for n in peak_lengths if n in lengths]:
    say(f'peak memory, N={length}')
    peaks = {kind: peak_memory.peak(
        paths[kind], tokens // length, length, TARGETS, vocabulary, size)
                 for kind in ('transformer', *kinds)}
    rows += [results.row(
        f'peak memory of a train step: {kind} N={length} / transformer '
        f'N={length}', peaks[kind] / peaks['transformer']) for kind in kinds]
  return rows


def figure1(paths, size, lengths, tokens, vocabulary, say=print):
  """Measures how many examples models train on in a second.

  Args:
    paths: the models' gin files.
    size: gin bindings that come after them.
    lengths: of inputs; targets are as T5's span corruption has them.
    tokens: input tokens in a batch, at any length.
    vocabulary: how many ids there are.
    say: is told of each case before it is measured.

  Returns:
    A pd.DataFrame: inputs, targets, batch, model, examples_per_second.

  Raises:
    errors.UserError: a model differs from the one of plain convolutions.
  """
  rows = []
  for length in lengths:
    batch, targets = tokens // length, models.targets_length(length)
    times = timing.interleave({
        models.kind(path): whole_models.training_step(
            path, batch, length, targets, vocabulary, size, say)
        for path in paths}, 0, min_rounds=3, warm_up=1)
    rows += [(length, targets, batch, model, batch / times.median(model))
             for model in times]
  return pd.DataFrame(rows, columns=[
      'inputs', 'targets', 'batch', 'model', 'examples_per_second'])
