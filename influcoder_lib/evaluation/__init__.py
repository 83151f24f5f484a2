"""How good a ranking is, against what costs less: baselines and the honest comparison."""
