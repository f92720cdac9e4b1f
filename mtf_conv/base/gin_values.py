"""The values that gin binds."""

import copy

import gin


def bound(parameter):
  """Returns the value that gin binds to a parameter.

  Args:
    parameter: such as 'utils.run.batch_size'.

  Returns:
    The value, with those of macros and configurables in the place of references
    to them; None if nothing is bound.
  """
  try:
    value = gin.query_parameter(parameter)
  except ValueError:
    return None
  return copy.deepcopy(value)  # gin's references are resolved when copied.


def macro(name):
  """Returns the value of a macro, such as 'd_model'; None if it has none."""
  return bound(f'{name}/gin.macro.value')
