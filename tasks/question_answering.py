"""SQuAD, as T5 formats and scores it."""

from mtf_conv.tasks import tfds_source
from t5.data import postprocessors, preprocessors
from t5.evaluation import metrics

tfds_source.add_task(
    'squad', 'squad/v1.1:3.0.0',
    {'train': 'train', 'validation': 'validation'},
    preprocessors.squad, [metrics.squad], postprocess_fn=postprocessors.qa)
