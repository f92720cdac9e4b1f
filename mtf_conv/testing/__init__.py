"""What a mixer has to pass before it is worth training.

    from mtf_conv import testing
    for result in testing.check_mixer('models/lightconv.tiny.gin'):
      assert result.passed, result

`mtf_conv check models/my.gin` prints the same as a table.
"""

from mtf_conv.testing.properties import PROPERTIES, Result, check_mixer

__all__ = ['PROPERTIES', 'Result', 'check_mixer']
