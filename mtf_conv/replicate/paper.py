"""The numbers that the paper prints (Tay et al., ACL 2021), as data."""

MODELS = ('transformer', 'lightconv', 'dilatedconv', 'dynamicconv')
INITS = ('raw', 'pretrained')
LEARNING_RATES = (0.001, 0.0005, 0.0001)

# Table 2's columns: (task, metric).
COLUMNS = (
    ('civil_comments', 'accuracy'), ('civil_comments', 'f1'),
    ('wiki_toxicity', 'accuracy'), ('wiki_toxicity', 'f1'),
    ('imdb', 'accuracy'), ('sst2', 'accuracy'), ('sentiment140', 'accuracy'),
    ('trec', 'accuracy'), ('ag_news', 'accuracy'))

# Scores in percent, by initialisation and model, in the order of COLUMNS.
TABLE_2 = {
    'raw': {
        'transformer':
            (77.22, 85.09, 91.93, 95.45, 84.81, 78.44, 58.84, 78.00, 84.25),
        'lightconv':
            (78.58, 85.82, 91.05, 94.65, 85.88, 81.65, 60.64, 82.20, 87.22),
        'dilatedconv':
            (79.94, 86.50, 92.29, 94.91, 85.84, 79.01, 55.62, 79.60, 81.24),
        'dynamicconv':
            (78.49, 84.71, 90.06, 95.66, 85.69, 82.80, 60.84, 80.20, 85.13),
    },
    'pretrained': {
        'transformer':
            (81.16, 86.56, 91.46, 95.12, 94.16, 92.09, 61.65, 93.60, 93.54),
        'lightconv':
            (81.47, 87.58, 93.61, 96.48, 93.60, 92.20, 61.65, 93.60, 93.63),
        'dilatedconv':
            (81.67, 87.78, 93.84, 96.21, 93.92, 92.09, 62.85, 94.20, 93.26),
        'dynamicconv':
            (81.83, 87.71, 93.76, 96.53, 93.35, 91.59, 62.45, 92.40, 93.93),
    },
}

# The gains as printed, relative changes in percent. Ten of them do not follow
# from the scores above (by 0.1 to 0.4); `gain` computes them.
PRINTED_GAINS = {
    'transformer': (5.1, 1.7, -0.6, -0.4, 11.0, 17.4, 4.7, 20.0, 11.0),
    'lightconv': (3.7, 2.1, 2.8, 1.9, 9.0, 13.0, 1.7, 14.0, 7.3),
    'dilatedconv': (2.1, 1.5, 1.7, 1.4, 9.4, 17.0, 13.0, 18.0, 14.8),
    'dynamicconv': (4.3, 3.5, 4.1, 1.0, 8.9, 10.6, 2.6, 15.2, 10.4),
}


# What the text says of pre-trained models in percent, COGS in section 5 and the
# others, rounded, in 6.1: of the Transformer, and of 'convolutions', which is
# taken for each of the three.
TEXT = {
    ('cogs', 'exact_match'): (95, 95),
    ('cogs_gen', 'exact_match'): (77.5, 76.9),
    ('mnli', 'accuracy'): (84, 75),
    ('squad', 'f1'): (90, 70),
}
# MultiNLI with a layer of attention in an otherwise convolutional encoder.
MNLI_WITH_ENCODER_ATTENTION = 83


def score(model, init, task, metric):
  """Returns a score that the paper prints, in percent; None if it has none."""
  if model not in MODELS:
    return None
  if (task, metric) in COLUMNS:
    try:
      return TABLE_2[init][model][COLUMNS.index((task, metric))]
    except KeyError:
      return None
  if init == 'pretrained' and (task, metric) in TEXT:
    return float(TEXT[task, metric][model != 'transformer'])
  return None


def in_order(models):
  """Returns models without doubles: the paper's in its order, then others."""
  found = list(dict.fromkeys(models))
  return sorted(found, key=lambda model: (
      MODELS.index(model) if model in MODELS else len(MODELS)))


def gain(raw, pretrained):
  """Returns what pre-training gains, in percent of the score without it.

  Args:
    raw: the score without it.
    pretrained: the score with it.

  Returns:
    A float, NaN where the score without it is 0.
  """
  return 100 * (pretrained - raw) / raw if raw else float('nan')
