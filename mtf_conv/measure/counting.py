"""mtf_conv params: parameters, memory and FLOPs, without training."""

import os

import pandas as pd

from mtf_conv.measure import graph, models


def einsum(builder) -> int:
  """Counts the multiply-adds of all einsums in a Mesh TensorFlow graph.

  Einsums are all products that take part in training: of matrices, of
  embeddings, and element by element. A convolution counts its taps, and a
  lookup nothing: models are counted with models.AS_ON_TPU.

  Args:
    builder: a graph.Builder.

  Returns:
    What T5 logs as the counter `einsum`.
  """
  counters = builder.lower().counters
  return sum(value for name, value in counters if name == 'einsum')


def step_einsum(path, inputs) -> int:
  """Counts the multiply-adds of one example's forward and backward pass.

  Args:
    path: the model's gin file.
    inputs: the length of its inputs; targets are as T5's span corruption has
      them.

  Returns:
    Multiply-adds; each is two FLOPs.
  """
  models.parse([path], models.AS_ON_TPU)
  with graph.Builder() as builder:
    models.training(builder, 1, inputs, models.targets_length(inputs))
    return einsum(builder)


def size(path) -> dict:
  """Counts what a model keeps in memory.

  Args:
    path: the model's gin file.

  Returns:
    A dict: parameters; variables, how many tensors these are; megabytes, of
    2**20 bytes, of parameters and Adafactor's slots in float32 on a core that
    holds all of the model.
  """
  models.parse([path], models.AS_ON_TPU)
  with graph.Builder() as builder:
    _, gradients = models.training(builder, 1, 8, 8)
    parameters = builder.graph.trainable_variables
    models.optimize(builder, gradients)
    return {
        'parameters': sum(v.size for v in parameters),
        'variables': len(parameters),
        'megabytes': 4 * sum(v.size for v in builder.graph.all_variables)
                     / 2**20}


def count(paths, lengths, say=print) -> pd.DataFrame:
  """Counts all there is to count.

  Args:
    paths: the models' gin files.
    lengths: of inputs.
    say: is told of each model.

  Returns:
    A row for every model and length: model, parameters, variables, megabytes,
    inputs, targets, einsum.
  """
  rows = []
  for path in paths:
    say(models.title(path))
    model = {'model': models.title(path), **size(path)}
    rows += [{**model, 'inputs': length,
              'targets': models.targets_length(length),
              'einsum': step_einsum(path, length)} for length in lengths]
  return pd.DataFrame(rows)


def show(names, sizes, lengths, csv=None, figure_dir=None):
  """Prints the table and writes what is asked for.

  Args:
    names: models, see models.resolve.
    sizes: of models that are named without one.
    lengths: of inputs.
    csv: a file for the table.
    figure_dir: a folder for figure2.csv and figure2.png.

  Raises:
    errors.UserError: there is no such model.
  """
  paths = [path for name in names for path in models.resolve(name, sizes)]
  frame = count(paths, lengths, say=lambda model: print(
      f'  {model} ...', flush=True))
  print(to_text(frame), end='', flush=True)
  if csv:
    frame.to_csv(csv, index=False, float_format='%.1f')
  if figure_dir:
    from mtf_conv.measure import figures
    os.makedirs(figure_dir, exist_ok=True)
    path = os.path.join(figure_dir, 'figure2')
    frame.to_csv(f'{path}.csv', index=False, float_format='%.1f')
    figures.lines(
        f'{path}.png', frame.pivot(
            index='inputs', columns='model', values='einsum')[
                list(frame.model.unique())],
        'multiply-adds of a training step per example (einsum)',
        'input length; targets by the rule of span corruption')
    print(f'Wrote {path}.csv and .png')


def to_text(frame) -> str:
  """Returns two tables: of sizes, and of multiply-adds by length."""
  by_model = frame.groupby('model', sort=False)
  sizes = by_model[['parameters', 'variables', 'megabytes']].first()
  einsums = frame.pivot(index='model', columns=['inputs', 'targets'],
                        values='einsum').loc[sizes.index]
  einsums.columns = [f'{i}/{t}' for i, t in einsums.columns]
  formats = {'parameters': '{:,}', 'variables': '{}', 'megabytes': '{:,.0f}'}
  return '\n'.join([
      'Float32 memory: parameters and the slots of Adafactor, unsplit.',
      sizes.to_string(formatters={
          name: form.format for name, form in formats.items()}),
      '', 'Multiply-adds (einsum) of an example, forward and backward, by '
      'inputs/targets:', einsums.map('{:.3e}'.format).to_string(), ''])
