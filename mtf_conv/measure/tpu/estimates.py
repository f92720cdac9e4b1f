"""What the TPU's compiler estimates of a program: cycles and bytes, by kind.

The optimized program is HLO as text. Nearly every operation that takes time has
an estimate of cycles with it; a loop counts as often as it runs. What has no
estimate is listed by name: it is not known, and not nothing.
"""

import collections
import math
import re
from typing import NamedTuple, Optional

# Operations that take no time of their own.
_FREE = {'parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast',
         'iota', 'partition-id', 'replica-id', 'after-all', 'copy-done',
         'slice-done', 'async-done', 'all-reduce-done', 'opt-barrier',
         'add-dependency', 'domain', 'AllocateBuffer'}
_TRANSFERS = ('all-reduce', 'all-gather', 'all-to-all', 'reduce-scatter',
              'collective-permute')

# What program marks as a transfer has this name, and what copies its result.
_FROM_TRANSFER = '/XlaCustomCall'

COMMUNICATION, OTHER = 'communication', 'other'

# A kind is the first of these that is found in the name of the TensorFlow
# operation that most of an operation of HLO came from.
_LAYER = r'{}coder/block_\d+/layer_\d+/'
_NOT_MIXER = r'(?!EncDecAttention|DenseReluDense|\w*[Nn]orm\b|add|einsum)\w+/'
_KINDS = (
    # Adafactor begins with gradients in float32.
    ('optimizer', r'adafactor|/adam|\bassign|^to_float(_\d+)?/'),
    # Stacked by Mesh TensorFlow where they are alike, and copied.
    ('variables', r'\b(un)?stack(ed)?(_\d+)*/|^XLA_Args'),
    ('mixer, encoder', _LAYER.format('en') + _NOT_MIXER),
    ('mixer, decoder', _LAYER.format('de') + _NOT_MIXER),
    ('encoder-decoder attention', _LAYER.format('de') + 'EncDecAttention/'),
    ('FFN', _LAYER.format('(?:en|de)') + 'DenseReluDense/'),
    ('norms and residuals', r'coder/block_\d+/|coder/\w*norm'),
    ('embeddings', r'coder/(einsum|one_hot|gather)/'),
    ('logits and loss', r'\bdecoder/'),
)
# As they are listed.
KINDS = (*(kind for kind, _ in _KINDS[2:]), *(kind for kind, _ in _KINDS[:2]),
         COMMUNICATION, OTHER)

_COMPUTATION = re.compile(r'(ENTRY )?%?([\w.<>~-]+) \(.*\{$')
_INSTRUCTION = re.compile(r'  (ROOT )?%?([\w.<>~-]+) = ')
_NAME = re.compile(r'%([\w.<>~-]+)')
_ARRAY = re.compile(r'\b([a-z]+\d*)\w*\[([\d,]*)\](?:\{([^}]*)\})?')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


class Instruction(NamedTuple):
  """An operation of HLO.

  Attributes:
    name: in its computation.
    opcode: what it does.
    shape: of its output, as written.
    operands: names of what it reads.
    rest: what comes after the operands, as written.
    is_root: whether it is what its computation gives.
    value: of a scalar constant, as written.
  """

  name: str
  opcode: str
  shape: str
  operands: tuple
  rest: str
  is_root: bool
  value: str

  def called(self, attribute):
    """Returns the name of a computation that it calls; None if it does not."""
    found = re.search(rf'\b{attribute}=%?([\w.<>~-]+)', self.rest)
    return found and found.group(1)


class Row(NamedTuple):
  """An operation of a program that takes time.

  Attributes:
    cycles: each time, as the compiler estimates; None if it does not.
    times: how often it is done.
    bytes: that it reads and writes in main memory, each time, without the
      padding of tiles.
    opcode: what it does; of a custom call, what it calls.
    name: of the operation of TensorFlow that it came from; '' if not known.
    label: its own name.
  """

  cycles: Optional[int]
  times: int
  bytes: int
  opcode: str
  name: str
  label: str


def parse(text):
  """Reads an optimized program.

  Args:
    text: of HLO, with operands by name.

  Returns:
    (a dict from names of computations to dicts from names to Instructions, the
    name of the one that is run).
  """
  found, entry, instructions = {}, None, None
  for line in text.splitlines():
    match = _INSTRUCTION.match(line)
    if match and instructions is not None:
      instructions[match.group(2)] = _instruction(
          match.group(2), bool(match.group(1)), line[match.end():])
      continue
    match = _COMPUTATION.match(line)
    if match:
      instructions = found[match.group(2)] = {}
      entry = match.group(2) if match.group(1) else entry
  return found, entry


def _instruction(name, is_root, text):
  end = _closing(text, 0) if text.startswith('(') else text.index(' ')
  shape, text = text[:end], text[end:].lstrip()
  opcode, _, text = text.partition('(')
  end = _closing(text, 1)
  operands, rest = text[:end - 1], text[end:]
  return Instruction(name, opcode, shape, tuple(_NAME.findall(operands)), rest,
                     is_root, operands if opcode == 'constant' else '')


def _closing(text, depth):
  """Returns where the bracket ends that is depth deep at the beginning."""
  for place, character in enumerate(text):
    depth += (character == '(') - (character == ')')
    if character == ')' and not depth:
      return place + 1
  return len(text)


def rows(text, unknown_trips=None) -> list[Row]:
  """Lists what a program does, loops as often as they run.

  A loop of which it is not known how often it runs is a Row without cycles, and
  so is all in it: of its rows `times` is that of one trip.

  Args:
    text: of HLO, see parse.
    unknown_trips: how often such a loop is taken to run instead.
  """
  computations, entry = parse(text)
  listed = []

  def walk(computation, times, is_known):
    instructions = computations[computation]
    for instruction in instructions.values():
      opcode, name = instruction.opcode, _OP_NAME.search(instruction.rest)
      name = name.group(1) if name else ''
      target = _TARGET.search(instruction.rest)
      target = target and target.group(1)
      if opcode == 'while':
        trips = loop_trips(instruction, computations)
        trips = unknown_trips if trips is None else trips
        if trips is None:
          listed.append(Row(None, times, 0, 'while of unknown trips', name,
                            instruction.name))
        walk(instruction.called('body'),
             times if trips is None else times * trips,
             is_known and trips is not None)
      elif opcode in ('call', 'async-start'):
        called = instruction.called('to_apply') or instruction.called('calls')
        if called:
          walk(called, times, is_known)
      elif opcode not in _FREE and target not in _FREE:
        cycles = _CYCLES.search(instruction.rest)
        listed.append(Row(
            int(cycles.group(1)) if cycles and is_known else None, times,
            _bytes(instruction.shape) + sum(
                _bytes(instructions[operand].shape)
                for operand in dict.fromkeys(instruction.operands)
                if operand in instructions),
            target or opcode, name, instruction.name))
  walk(entry, 1, True)
  return listed


def loop_trips(loop, computations) -> Optional[int]:
  """Returns how often a loop runs; None if it is not known.

  It is known to the compiler, or the loop counts from 0 to a constant.

  Args:
    loop: an Instruction, a while.
    computations: what parse returned.
  """
  known = _TRIPS.search(loop.rest)
  if known:
    return int(known.group(1))
  condition = computations[loop.called('condition')]
  root = next(i for i in condition.values() if i.is_root)
  limits = [condition[name].value for name in root.operands
            if condition[name].opcode == 'constant']
  if (root.opcode == 'compare' and 'direction=LT' in root.rest
      and len(limits) == 1 and limits[0].isdigit()):
    return int(limits[0])
  return None


def _bytes(shape):
  """Returns the bytes of a shape that are in main memory."""
  total = 0
  for dtype, sizes, layout in _ARRAY.findall(shape):
    if re.search(r'S\([1-9]', layout):
      continue  # In the core's own memory.
    bits = re.search(r'\d+', dtype)
    size = int(bits.group()) / 8 if bits else dtype == 'pred'
    total += math.prod(map(int, filter(None, sizes.split(',')))) * size
  return int(total)


def kind(row) -> str:
  """Returns which part of a step of training a Row belongs to, of KINDS."""
  if row.opcode.startswith(_TRANSFERS) or row.name.endswith(_FROM_TRANSFER):
    return COMMUNICATION
  for name, pattern in _KINDS:
    if re.search(pattern, row.name):
      return name
  return OTHER


class Sum(NamedTuple):
  """Of all rows of a kind.

  Attributes:
    cycles: of those with an estimate; None if none has one.
    bytes: of all.
    missing: a dict from opcodes to how often what has no estimate is done.
    missing_bytes: of what has no estimate.
  """

  cycles: Optional[int]
  bytes: int
  missing: dict
  missing_bytes: int


def total(listed) -> Sum:
  """Sums Rows up."""
  missing = collections.Counter()
  for row in listed:
    if row.cycles is None:
      missing[row.opcode] += row.times
  known = [row.cycles * row.times for row in listed if row.cycles is not None]
  return Sum(
      sum(known) if known else None,
      sum(row.bytes * row.times for row in listed), dict(missing),
      sum(row.bytes * row.times for row in listed if row.cycles is None))


def by_kind(listed) -> dict[str, Sum]:
  """Sums Rows up by kind; kinds that have none are left out."""
  found = collections.defaultdict(list)
  for row in listed:
    found[kind(row)].append(row)
  return {name: total(found[name]) for name in KINDS if name in found}
