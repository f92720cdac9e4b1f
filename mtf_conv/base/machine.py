"""The machine that a figure was measured on."""

import importlib
import importlib.util
import os
import platform
import re


def cores() -> int:
  """Returns how many cores this process may use."""
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count()  # Not a Linux.


def describe() -> str:
  """Returns one line: processor, cores, and what computes on them."""
  libraries = [f'{name} {importlib.import_module(name).__version__}'
               for name in ('tensorflow', 'torch', 'jax') if has(name)]
  return ', '.join([
      processor(), f'{cores()} cores and threads', 'float32',
      f'Python {platform.python_version()}', *libraries])


def has(library: str) -> bool:
  """Returns whether a peer's library is installed."""
  return importlib.util.find_spec(library) is not None


def processor() -> str:
  """Returns the name of the processor."""
  try:
    with open('/proc/cpuinfo') as f:
      found = re.search(r'^model name\s*: (.*)', f.read(), re.M)
  except FileNotFoundError:  # Not a Linux.
    found = None
  return found.group(1) if found else platform.processor()
