"""What an influence encoder has to beat, each predictor behind one interface."""
