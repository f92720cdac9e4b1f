"""Reads records, batches them, and writes their answers in order.

A window of records is sorted by length into batches of few shapes. While its
batches are computed, one on each core, the window before is written: memory
does not grow with the file.
"""

import collections
import concurrent.futures
import itertools
import threading
import time

import numpy as np
import tensorflow.compat.v1 as tf
import tqdm

from mtf_conv.answer import engine as engines
from mtf_conv.base import errors, machine, terminal

_BATCHES = 16  # Of a window.


def run(verb, engine, source, output, batch_size, total=None):
  """Answers all records.

  Args:
    verb: one of module verbs.
    engine: an engine.Engine.
    source: yields records.Record.
    output: an output.Output.
    batch_size: how many rows the model reads at once.
    total: how many records there are, if it is known.

  Raises:
    errors.UserError: a record that cannot be used, or a file that cannot be
      written; answers until then are kept.
  """
  batcher = _Batcher(engine, verb, batch_size)
  source = iter(source)
  with output, concurrent.futures.ThreadPoolExecutor(machine.cores()) as pool:
    output.skip(record.line for record in itertools.islice(source, output.done))
    with _Progress(total, output.done) as progress:
      before, wrong = None, None
      try:
        while True:
          try:
            window = list(itertools.islice(source, _BATCHES * batch_size))
            now = window and _Window(window, verb, batcher, pool, progress)
          except errors.UserError as error:
            now, wrong = None, error  # What comes before the line is kept.
          if before:
            before.write(output)
          if not now:
            break
          before = now
      except KeyboardInterrupt:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    if wrong:
      raise wrong
    output.finish()


class _Batcher:
  """Makes batches of rows, whose shapes repeat."""

  def __init__(self, engine, verb, batch_size):
    self._engine = engine
    self._verb = verb
    self._batch_size = batch_size
    self._sizes = {}

  def batches(self, rows):
    """Sorts rows into batches.

    Args:
      rows: a list of tuples of arrays of one dimension.

    Yields:
      (indices of rows, a list of arrays [batch, length], the function of them).
      A batch that lacks rows has its last one several times.
    """
    groups = collections.defaultdict(list)
    for index, row in enumerate(rows):
      groups[tuple(self._engine.bucket(len(part)) for part in row)].append(
          index)
    is_all = len(rows) < _BATCHES * self._batch_size
    for shape, indices in sorted(groups.items()):
      if shape not in self._sizes:
        self._sizes[shape] = self._size(shape, len(indices), is_all)
      size = self._sizes[shape]
      for start in range(0, len(indices), size):
        chosen = indices[start:start + size]
        filled = chosen + chosen[-1:] * (size - len(chosen))
        arrays = [engines.pad(parts, length) for parts, length in zip(
            zip(*(rows[index] for index in filled)), shape)]
        yield chosen, arrays, self._engine.function(self._verb.build, arrays)

  def _size(self, shape, count, is_all):
    """How many rows a batch has; a file of few lines needs no large ones."""
    size = min(self._batch_size, *(
        max(1, tokens // length)
        for tokens, length in zip(self._verb.tokens, shape)))
    return min(size, 1 << (count - 1).bit_length()) if is_all else size


class _Window:
  """Records that are being answered."""

  def __init__(self, window, verb, batcher, pool, progress):
    self._records, self._verb = window, verb
    self._rows = [verb.rows(record) for record in window]
    progress.add(sum(not rows for rows in self._rows), 0)
    self._results = [None] * sum(map(len, self._rows))
    self._futures = [
        pool.submit(self._compute, chosen, arrays, function, progress)
        for chosen, arrays, function in batcher.batches(
            list(itertools.chain(*self._rows)))]

  def _compute(self, chosen, arrays, function, progress):
    found = function(arrays)
    for row, index in enumerate(chosen):
      self._results[index] = [array[row] for array in found]
    progress.add(
        len(chosen) / self._verb.copies,
        sum(np.count_nonzero(array[:len(chosen)]) for array in [*arrays, *found]
            if array.dtype == np.int32))

  def write(self, output):
    """Writes the answers when they are there."""
    try:
      for future in self._futures:
        future.result()
    except tf.errors.ResourceExhaustedError as error:
      raise errors.UserError(
          'there is not enough memory: give a smaller --batch_size') from error
    results = iter(self._results)
    output.add(b''.join(
        self._verb.line(record, rows, list(itertools.islice(
            results, len(rows))))
        for record, rows in zip(self._records, self._rows)),
               [record.line for record in self._records])


class _Progress:
  """Records, and tokens in a second, on the terminal."""

  def __init__(self, total, done):
    self._bar = tqdm.tqdm(
        total=total, initial=done, unit='example', file=terminal.stream(),
        dynamic_ncols=True, mininterval=0.5,
        disable=not terminal.shows_progress())
    self._lock = threading.Lock()
    self._start = time.monotonic()
    self._records, self._tokens = done, 0

  def __enter__(self):
    return self

  def __exit__(self, *exception):
    self._bar.close()

  def add(self, number, tokens):
    """Notes what is done; several threads may call it."""
    with self._lock:
      self._records += number
      self._tokens += tokens
      seconds = time.monotonic() - self._start
      self._bar.set_postfix_str(
          f'{self._tokens / max(seconds, 1e-3):,.0f} tokens/s', refresh=False)
      self._bar.update(int(self._records + 1e-6) - self._bar.n)
